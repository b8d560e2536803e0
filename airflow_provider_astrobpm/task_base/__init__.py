"""The base classes and helpers of the operators and the sensor."""
