-- Revision 0004 on SQLite.
-- When the watchdog inserted the row itself, because a callback reported the task; null once the application has.
ALTER TABLE zego_tasks ADD COLUMN discovered_at TEXT
--;
-- The application's INSERT over such a row succeeds: the row moves aside, under a name that is no TaskId.
CREATE TRIGGER zego_tasks_taken_over BEFORE INSERT ON zego_tasks
WHEN NEW.discovered_at IS NULL AND NEW.room_id IS NOT NULL
BEGIN
    UPDATE zego_tasks SET task_id = 'discovered ' || task_id WHERE task_id = NEW.task_id AND discovered_at IS NOT NULL;
END
--;
DROP TRIGGER zego_tasks_inserted
--;
DROP TRIGGER zego_tasks_inserted_seen_by_vendor
--;
-- Apply a hint on insert. The daemon's columns get their initial values, whatever the statement says. If a discovered row
-- has moved aside, it is updated with the application's columns, and takes the place of the inserted one: what is known of
-- the task stays, and the newer hint, a claim, and a final status as with any UPDATE.
CREATE TRIGGER zego_tasks_inserted AFTER INSERT ON zego_tasks
BEGIN
    UPDATE zego_tasks SET
        started_at        = strftime('%Y-%m-%d %H:%M:%f000', NEW.started_at),
        hold_until        = strftime('%Y-%m-%d %H:%M:%f000', NEW.hold_until),
        user_count_at     = CASE WHEN NEW.user_count IS NOT NULL THEN
                                min(coalesce(strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at), strftime('%Y-%m-%d %H:%M:%f000', 'now')),
                                    strftime('%Y-%m-%d %H:%M:%f000', 'now')) END,
        user_count_source = CASE WHEN NEW.user_count IS NOT NULL THEN coalesce(NEW.user_count_source, 'app') END,
        last_occupied_at  = NULL,
        empty_since       = NULL,
        due_at            = NULL,
        auto_stop_at      = NULL,
        wake_at           = NULL,
        claimed_by        = NULL,
        attempts          = 0,
        ended_at          = CASE WHEN NEW.status <> 'active' THEN
                                coalesce(strftime('%Y-%m-%d %H:%M:%f000', NEW.ended_at), strftime('%Y-%m-%d %H:%M:%f000', 'now')) END,
        asked_at          = '1970-01-01 00:00:00.000000'
    WHERE task_id = NEW.task_id;
    UPDATE zego_tasks SET
        last_occupied_at   = CASE WHEN user_count > 0 THEN user_count_at END,
        empty_since        = CASE WHEN user_count = 0 THEN user_count_at END,
        vendor_occupied_at = CASE WHEN user_count > 0 AND user_count_source IN ('api', 'callback') THEN user_count_at END
    WHERE task_id = NEW.task_id;
    UPDATE zego_tasks SET
        room_id          = NEW.room_id,
        app_id           = NEW.app_id,
        kind             = NEW.kind,
        max_idle_seconds = NEW.max_idle_seconds,
        grace_seconds    = NEW.grace_seconds,
        hold_until       = NEW.hold_until,
        started_at       = NEW.started_at,
        due_at           = NULL,
        auto_stop_at     = NULL,
        wake_at          = CASE WHEN claimed_by IS NOT NULL THEN wake_at END,
        discovered_at    = NULL
    WHERE task_id = 'discovered ' || NEW.task_id;
    -- An equal time would be taken for the present.
    UPDATE zego_tasks SET user_count_at = NULL
    WHERE task_id = 'discovered ' || NEW.task_id AND NEW.user_count IS NOT NULL
        AND user_count_at = (SELECT user_count_at FROM zego_tasks WHERE task_id = NEW.task_id);
    UPDATE zego_tasks SET
        user_count        = NEW.user_count,
        user_count_at     = (SELECT user_count_at FROM zego_tasks WHERE task_id = NEW.task_id),
        user_count_source = (SELECT user_count_source FROM zego_tasks WHERE task_id = NEW.task_id)
    WHERE task_id = 'discovered ' || NEW.task_id AND NEW.user_count IS NOT NULL;
    UPDATE zego_tasks SET
        status   = NEW.status,
        ended_at = (SELECT ended_at FROM zego_tasks WHERE task_id = NEW.task_id)
    WHERE task_id = 'discovered ' || NEW.task_id AND status = 'active' AND NEW.status <> 'active';
    DELETE FROM zego_tasks
    WHERE task_id = NEW.task_id AND EXISTS (SELECT 1 FROM zego_tasks WHERE task_id = 'discovered ' || NEW.task_id);
    UPDATE zego_tasks SET task_id = NEW.task_id WHERE task_id = 'discovered ' || NEW.task_id;
END
--;
-- A task that ended a week ago is not heard of any more, and is only removed because of its age.
CREATE TRIGGER zego_tasks_deleted AFTER DELETE ON zego_tasks
WHEN (OLD.ended_at IS NULL OR OLD.ended_at > strftime('%Y-%m-%d %H:%M:%f000', 'now', '-7 days'))
    AND NOT EXISTS (SELECT 1 FROM zego_tasks WHERE task_id = 'discovered ' || OLD.task_id)
BEGIN
    INSERT OR REPLACE INTO zego_deleted_tasks (task_id, deleted_at)
    VALUES (OLD.task_id, strftime('%Y-%m-%d %H:%M:%f000', 'now'));
END
