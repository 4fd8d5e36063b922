#!/usr/bin/env python3
"""Make the bucket where the tracking server keeps artifacts; done where it is there already.

    make_bucket.py BUCKET

The store and its keys are in `MLFLOW_S3_ENDPOINT_URL` and `AWS_*`, as MLflow's server takes them.
"""

import os
import sys

import boto3
from botocore.exceptions import ClientError


def main() -> None:
    """Look for it, and make it where it is not."""
    bucket = sys.argv[1]
    s3 = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] != "404":
            raise
        s3.create_bucket(Bucket=bucket)


if __name__ == "__main__":
    main()
