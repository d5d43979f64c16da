-- Revision 0003 on SQLite.
DROP TRIGGER zego_stop_attempts_append_only
--;
CREATE TRIGGER zego_stop_attempts_append_only BEFORE UPDATE ON zego_stop_attempts
WHEN OLD.outcome <> 'sent' AND NOT (
    OLD.outcome = 'unknown' AND OLD.replied_at IS NULL AND OLD.http_status IS NULL AND OLD.code IS NULL
    AND NEW.outcome NOT IN ('sent', 'unknown')
)
BEGIN
    SELECT RAISE(ABORT, 'zego_stop_attempts: a row is never updated after its final outcome');
END
