"""The vendor's return codes.

They come from its return-code pages of each product, such as
https://www.zegocloud.com/docs/cloud-realtime-asr/api-reference/return-codes and
https://www.zegocloud.com/docs/real-time-voice-server/api-reference/return-codes.
"""

from enum import IntEnum
from typing import Self


class Code(IntEnum):
    """The return codes of the sandbox; a misbehaviour may return any other."""

    message: str

    def __new__(cls, value: int, message: str) -> Self:
        code = int.__new__(cls, value)
        code._value_ = value
        code.message = message
        return code

    SUCCESS = 0, "Success"
    INPUT_INVALID = 2, "Incorrect input parameter."
    APP_RATE = 206, "Too many requests of this app."
    ROOM_RATE = 207, "Too many requests for this room."
    APP_ID_FORMAT = 100000001, "AppId format error."
    TIMESTAMP_EMPTY = 100000002, "Timestamp is empty."
    TIMESTAMP_FORMAT = 100000003, "Timestamp format error."
    SIGNATURE_EXPIRED = 100000004, "Signature expired."
    SIGNATURE_WRONG = 100000005, "Signature error."
    ACTION_EMPTY = 100000006, "Action is empty."
    ACTION_UNSUPPORTED = 100000007, "Unsupported Action."
    NONCE_EMPTY = 100000008, "SignatureNonce is empty."
    SIGNATURE_EMPTY = 100000009, "Signature is empty."
    NO_SERVER_SECRET = 100000010, "Failed to get ServerSecret."
    SIGNATURE_VERSION_EMPTY = 100000013, "SignatureVersion is empty."
    SIGNATURE_VERSION_UNSUPPORTED = 100000014, "Unsupported SignatureVersion."
    PARAMETER_INVALID = 410000003, "Parameter invalid."
    JSON_INVALID = 410000004, "JSON invalid."
    NO_RESOURCES = 410000010, "No resources."
    CONCURRENCY = 410000011, "Concurrency control exceeded."
    TASK_NOT_FOUND = 410001002, "Task not found."
    INSTANCE_STOPPING = 410001041, "The instance is being stopped."
    DIGITAL_HUMAN_NOT_FOUND = 400000005, "Task not found."
    DIGITAL_HUMAN_STOPPED = 400000007, "Task is already stopped."
    DIGITAL_HUMAN_LIMIT = 400000008, "Too many tasks."
    DIGITAL_HUMAN_RATE = 400010009, "Too many requests."
    PLAYER_RATE = 350006001, "Too many requests."
    PLAYER_PARAMETER_INVALID = 350006003, "Invalid input parameter."
    PLAYER_SYSTEM_ERROR = 350010000, "System error."
    RECORDING_NOT_FOUND = 300001000, "Task not found."
    RECORDING_ENDED = 300001001, "Task has ended."
    RECORDING_RATE = 300000003, "Too many requests."
    RECORDING_SYSTEM_ERROR = 300010000, "System error."
