-- Run once, when the server's volume is new: one database a service, so that each can move to a server of its own.
CREATE DATABASE airflow;
CREATE DATABASE mlflow;
CREATE DATABASE feast;
CREATE DATABASE warehouse;
