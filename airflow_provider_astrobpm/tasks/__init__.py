"""What the operators and the sensor are made of."""
