-- Revision 0003 on PostgreSQL.
DROP TRIGGER zego_stop_attempts_append_only ON zego_stop_attempts
--;
CREATE TRIGGER zego_stop_attempts_append_only BEFORE UPDATE ON zego_stop_attempts
FOR EACH ROW WHEN (OLD.outcome <> 'sent' AND NOT (
    OLD.outcome = 'unknown' AND OLD.replied_at IS NULL AND OLD.http_status IS NULL AND OLD.code IS NULL
    AND NEW.outcome NOT IN ('sent', 'unknown')
))
EXECUTE FUNCTION zego_stop_attempts_append_only()
