"""The alert function on a local server: deployed with its table and its topic when its zip has been built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from runners.local.aws import Aws

FUNCTION, TABLE, HANDLER = "FraudAlertHandler", "fraud-alerts", "lambda_handler.lambda_handler"


def deploy_alert_function(aws: Aws, package: Path) -> None:
    """Create the function with all that it needs, or replace its code.

    Args:
        aws: running.
        package: the function's zip.

    Raises:
        ClientError: the server refused.
        WaiterError: it was not ready in time.
    """
    try:
        aws.client("dynamodb").create_table(
            TableName=TABLE,
            AttributeDefinitions=[{"AttributeName": "alert_id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "alert_id", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceInUseException":
            raise
    aws.deploy_function(FUNCTION, package, HANDLER, {"ALERT_TABLE": TABLE, "ALERT_TOPIC_ARN": aws.topic_arn})
