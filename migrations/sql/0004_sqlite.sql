-- Revision 0004 on SQLite.
-- A task that ended a week ago is not heard of any more, and is only removed because of its age.
CREATE TRIGGER zego_tasks_deleted AFTER DELETE ON zego_tasks
WHEN OLD.ended_at IS NULL OR OLD.ended_at > strftime('%Y-%m-%d %H:%M:%f000', 'now', '-7 days')
BEGIN
    INSERT OR REPLACE INTO zego_deleted_tasks (task_id, deleted_at)
    VALUES (OLD.task_id, strftime('%Y-%m-%d %H:%M:%f000', 'now'));
END
