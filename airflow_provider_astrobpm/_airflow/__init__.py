"""What every Airflow-facing room shares: the differences between Airflow versions, and the XCom keys."""
