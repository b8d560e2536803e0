"""Triggers: what waits in the triggerer in a task's place."""

XCOM_KEY = "instance_id"
"""The XCom under which each try of a task publishes the instance it started, before it waits."""
