-- Revision 0005 on SQLite.
-- SQLite skips a row that a BEFORE trigger ignores, and an object-relational mapper takes a row that was not updated for an
-- error. So values that must not change are put back afterwards. Meanwhile claimed_by is 'put back', and the triggers that see
-- it in the old row stand aside. No order of the triggers of one statement is relied upon.
DROP TRIGGER zego_tasks_final
--;
DROP TRIGGER zego_tasks_stale_hint
--;
DROP TRIGGER zego_tasks_seen_by_vendor
--;
DROP TRIGGER zego_tasks_hinted
--;
DROP TRIGGER zego_tasks_replan
--;
DROP TRIGGER zego_tasks_ended
--;
DROP TRIGGER zego_tasks_taken_over
--;
DROP TRIGGER zego_tasks_inserted
--;
DROP TRIGGER zego_tasks_deleted
--;
-- A final status never changes.
CREATE TRIGGER zego_tasks_final AFTER UPDATE OF status ON zego_tasks
WHEN OLD.status <> 'active' AND NEW.status <> OLD.status AND OLD.claimed_by IS NOT 'put back'
BEGIN
    UPDATE zego_tasks SET claimed_by = 'put back' WHERE task_id = NEW.task_id;
    UPDATE zego_tasks SET status = OLD.status, ended_at = OLD.ended_at, wake_at = NULL, claimed_by = NULL
    WHERE task_id = NEW.task_id;
END
--;
CREATE TRIGGER zego_tasks_ended AFTER UPDATE OF status ON zego_tasks
WHEN OLD.status = 'active' AND NEW.status <> 'active' AND OLD.claimed_by IS NOT 'put back'
BEGIN
    UPDATE zego_tasks SET
        ended_at   = coalesce(strftime('%Y-%m-%d %H:%M:%f000', NEW.ended_at), strftime('%Y-%m-%d %H:%M:%f000', 'now')),
        wake_at    = NULL,
        claimed_by = NULL
    WHERE task_id = NEW.task_id;
END
--;
-- An observation older than the stored one is ignored, and so is every observation of an ended task.
CREATE TRIGGER zego_tasks_hint_ignored AFTER UPDATE OF user_count ON zego_tasks
WHEN (OLD.status <> 'active' OR strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at) < OLD.user_count_at)
    AND OLD.claimed_by IS NOT 'put back'
BEGIN
    UPDATE zego_tasks SET claimed_by = 'put back' WHERE task_id = NEW.task_id;
    UPDATE zego_tasks SET
        user_count        = OLD.user_count,
        user_count_at     = OLD.user_count_at,
        user_count_source = OLD.user_count_source,
        claimed_by        = CASE WHEN status = 'active' THEN OLD.claimed_by END
    WHERE task_id = NEW.task_id;
END
--;
-- Apply a hint on update. SQL cannot tell a missing time from an unchanged one: both mean now.
-- While a claim is held, wake_at is the end of its lease and stays.
CREATE TRIGGER zego_tasks_hinted AFTER UPDATE OF user_count ON zego_tasks
WHEN OLD.status = 'active' AND NOT coalesce(strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at) < OLD.user_count_at, 0)
    AND OLD.claimed_by IS NOT 'put back'
BEGIN
    UPDATE zego_tasks SET
        user_count_at     = CASE WHEN NEW.user_count_at IS NULL OR strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at) IS OLD.user_count_at
                                 THEN strftime('%Y-%m-%d %H:%M:%f000', 'now')
                                 ELSE min(strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at), strftime('%Y-%m-%d %H:%M:%f000', 'now')) END,
        user_count_source = CASE WHEN NEW.user_count IS NOT NULL THEN
                                 CASE WHEN NEW.user_count_source IS NULL
                                        OR (NEW.user_count_source IS OLD.user_count_source
                                            AND (NEW.user_count_at IS NULL OR strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at) IS OLD.user_count_at))
                                      THEN 'app' ELSE NEW.user_count_source END END
    WHERE task_id = NEW.task_id;
    UPDATE zego_tasks SET
        last_occupied_at   = CASE WHEN user_count > 0 THEN user_count_at ELSE OLD.last_occupied_at END,
        vendor_occupied_at = CASE WHEN user_count > 0 AND user_count_source IN ('api', 'callback') THEN user_count_at
                                  ELSE OLD.vendor_occupied_at END,
        empty_since        = CASE WHEN user_count = 0 THEN
                                  CASE WHEN OLD.user_count = 0 AND OLD.empty_since IS NOT NULL THEN OLD.empty_since ELSE user_count_at END END,
        due_at             = CASE WHEN user_count = 0 THEN due_at END,
        auto_stop_at       = CASE WHEN user_count = 0 THEN auto_stop_at END,
        wake_at            = CASE WHEN user_count = 0 OR claimed_by IS NOT NULL THEN wake_at END
    WHERE task_id = NEW.task_id;
END
--;
-- A changed hold or time limit needs a new plan. While a claim is held, wake_at is the end of its lease.
CREATE TRIGGER zego_tasks_replan AFTER UPDATE OF hold_until, grace_seconds, max_idle_seconds, started_at ON zego_tasks
WHEN OLD.status = 'active' AND OLD.claimed_by IS NOT 'put back' AND (
    NEW.grace_seconds IS NOT OLD.grace_seconds OR NEW.max_idle_seconds IS NOT OLD.max_idle_seconds
    OR strftime('%Y-%m-%d %H:%M:%f000', NEW.hold_until) IS NOT strftime('%Y-%m-%d %H:%M:%f000', OLD.hold_until)
    OR strftime('%Y-%m-%d %H:%M:%f000', NEW.started_at) IS NOT strftime('%Y-%m-%d %H:%M:%f000', OLD.started_at)
)
BEGIN
    UPDATE zego_tasks SET
        due_at       = NULL,
        auto_stop_at = NULL,
        wake_at      = CASE WHEN claimed_by IS NOT NULL THEN wake_at END
    WHERE task_id = NEW.task_id;
END
--;
-- An UPDATE that writes the room is a whole row written by the application, perhaps as it was some time ago: the daemon never
-- writes the room. The columns of the daemon and the database become what the other triggers make of the old ones, whether
-- those run before or after this one.
CREATE TRIGGER zego_tasks_daemons_own AFTER UPDATE OF task_id, room_id ON zego_tasks
BEGIN
    UPDATE zego_tasks SET
        attempts      = OLD.attempts,
        asked_at      = OLD.asked_at,
        discovered_at = OLD.discovered_at,
        claimed_by    = CASE WHEN status = 'active' THEN OLD.claimed_by END,
        ended_at      = coalesce(ended_at, OLD.ended_at),
        last_occupied_at   = OLD.last_occupied_at,
        vendor_occupied_at = OLD.vendor_occupied_at,
        empty_since        = OLD.empty_since,
        due_at             = OLD.due_at,
        auto_stop_at       = OLD.auto_stop_at,
        wake_at            = CASE WHEN status = 'active' THEN OLD.wake_at END
    WHERE task_id = NEW.task_id;
    -- A hint that is not ignored.
    UPDATE zego_tasks SET
        last_occupied_at   = CASE WHEN user_count > 0 THEN user_count_at ELSE last_occupied_at END,
        vendor_occupied_at = CASE WHEN user_count > 0 AND user_count_source IN ('api', 'callback') THEN user_count_at
                                  ELSE vendor_occupied_at END,
        empty_since        = CASE WHEN user_count = 0 THEN
                                  CASE WHEN OLD.user_count = 0 AND OLD.empty_since IS NOT NULL THEN OLD.empty_since ELSE user_count_at END END,
        due_at             = CASE WHEN user_count = 0 THEN due_at END,
        auto_stop_at       = CASE WHEN user_count = 0 THEN auto_stop_at END,
        wake_at            = CASE WHEN user_count = 0 OR claimed_by IS NOT NULL THEN wake_at END
    WHERE task_id = NEW.task_id AND OLD.status = 'active'
        AND NOT coalesce(strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at) < OLD.user_count_at, 0);
    -- A changed limit.
    UPDATE zego_tasks SET
        due_at       = NULL,
        auto_stop_at = NULL,
        wake_at      = CASE WHEN claimed_by IS NOT NULL THEN wake_at END
    WHERE task_id = NEW.task_id AND OLD.status = 'active' AND (
        NEW.grace_seconds IS NOT OLD.grace_seconds OR NEW.max_idle_seconds IS NOT OLD.max_idle_seconds
        OR strftime('%Y-%m-%d %H:%M:%f000', NEW.hold_until) IS NOT strftime('%Y-%m-%d %H:%M:%f000', OLD.hold_until)
        OR strftime('%Y-%m-%d %H:%M:%f000', NEW.started_at) IS NOT strftime('%Y-%m-%d %H:%M:%f000', OLD.started_at)
    );
END
--;
-- The row that an INSERT OR REPLACE deletes, without room and kind, which the INSERT gives. At most one row, and of no meaning
-- after the INSERT.
CREATE TABLE zego_replaced AS SELECT
    task_id, app_id, max_idle_seconds, grace_seconds, hold_until, started_at, user_count, user_count_at,
    user_count_source, last_occupied_at, empty_since, due_at, auto_stop_at, wake_at, claimed_by, attempts, status,
    ended_at, asked_at, vendor_occupied_at, discovered_at
FROM zego_tasks WHERE 0
--;
-- No trigger knows whether the INSERT replaces the row, ignores or updates it, or fails. A discovered row goes, so that the
-- application's INSERT succeeds.
CREATE TRIGGER zego_tasks_known BEFORE INSERT ON zego_tasks
BEGIN
    DELETE FROM zego_replaced;
    INSERT INTO zego_replaced (
        task_id, app_id, max_idle_seconds, grace_seconds, hold_until, started_at, user_count, user_count_at,
        user_count_source, last_occupied_at, empty_since, due_at, auto_stop_at, wake_at, claimed_by, attempts, status,
        ended_at, asked_at, vendor_occupied_at, discovered_at
    ) SELECT
        task_id, app_id, max_idle_seconds, grace_seconds, hold_until, started_at, user_count, user_count_at,
        user_count_source, last_occupied_at, empty_since, due_at, auto_stop_at, wake_at, claimed_by, attempts, status,
        ended_at, asked_at, vendor_occupied_at, discovered_at
    FROM zego_tasks WHERE task_id = NEW.task_id;
    DELETE FROM zego_tasks
    WHERE task_id = NEW.task_id AND discovered_at IS NOT NULL AND NEW.discovered_at IS NULL AND NEW.room_id IS NOT NULL;
END
--;
-- Apply a hint on insert. The daemon's columns get their initial values, whatever the statement says. If there was such a row
-- before, it is put back, and what the INSERT gives is then written by ordinary updates: what is known of the task stays, and
-- the newer hint, a claim, and a final status. Null gives nothing, and started_at, which may be the default, moves only back;
-- to a discovered row, which began when it was discovered, the application's time and AppId are given.
CREATE TRIGGER zego_tasks_inserted AFTER INSERT ON zego_tasks
BEGIN
    UPDATE zego_tasks SET
        started_at        = strftime('%Y-%m-%d %H:%M:%f000', NEW.started_at),
        hold_until        = strftime('%Y-%m-%d %H:%M:%f000', NEW.hold_until),
        user_count_at     = CASE WHEN NEW.user_count IS NOT NULL THEN
                                min(coalesce(strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at), strftime('%Y-%m-%d %H:%M:%f000', 'now')), strftime('%Y-%m-%d %H:%M:%f000', 'now')) END,
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
    UPDATE zego_tasks SET claimed_by = 'put back' WHERE task_id = NEW.task_id AND EXISTS (SELECT 1 FROM zego_replaced);
    UPDATE zego_tasks SET
        app_id             = (SELECT app_id FROM zego_replaced),
        max_idle_seconds   = (SELECT max_idle_seconds FROM zego_replaced),
        grace_seconds      = (SELECT grace_seconds FROM zego_replaced),
        hold_until         = (SELECT hold_until FROM zego_replaced),
        started_at         = (SELECT started_at FROM zego_replaced),
        user_count         = (SELECT user_count FROM zego_replaced),
        user_count_at      = (SELECT user_count_at FROM zego_replaced),
        user_count_source  = (SELECT user_count_source FROM zego_replaced),
        last_occupied_at   = (SELECT last_occupied_at FROM zego_replaced),
        empty_since        = (SELECT empty_since FROM zego_replaced),
        due_at             = (SELECT due_at FROM zego_replaced),
        auto_stop_at       = (SELECT auto_stop_at FROM zego_replaced),
        wake_at            = (SELECT wake_at FROM zego_replaced),
        claimed_by         = (SELECT claimed_by FROM zego_replaced),
        attempts           = (SELECT attempts FROM zego_replaced),
        status             = (SELECT status FROM zego_replaced),
        ended_at           = (SELECT ended_at FROM zego_replaced),
        asked_at           = (SELECT asked_at FROM zego_replaced),
        vendor_occupied_at = (SELECT vendor_occupied_at FROM zego_replaced),
        discovered_at      = (SELECT discovered_at FROM zego_replaced)
    WHERE task_id = NEW.task_id AND EXISTS (SELECT 1 FROM zego_replaced);
    UPDATE zego_tasks SET
        app_id           = CASE WHEN discovered_at IS NULL THEN coalesce(NEW.app_id, app_id) ELSE NEW.app_id END,
        max_idle_seconds = coalesce(NEW.max_idle_seconds, max_idle_seconds),
        grace_seconds    = coalesce(NEW.grace_seconds, grace_seconds),
        hold_until       = coalesce(NEW.hold_until, hold_until),
        started_at       = CASE WHEN discovered_at IS NULL THEN min(strftime('%Y-%m-%d %H:%M:%f000', NEW.started_at), started_at) ELSE NEW.started_at END,
        discovered_at    = NULL
    WHERE task_id = NEW.task_id AND EXISTS (SELECT 1 FROM zego_replaced);
    -- An equal time would be taken for the present.
    UPDATE zego_tasks SET user_count_at = NULL
    WHERE task_id = NEW.task_id AND EXISTS (SELECT 1 FROM zego_replaced) AND NEW.user_count IS NOT NULL AND status = 'active'
        AND user_count_at = min(coalesce(strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at), strftime('%Y-%m-%d %H:%M:%f000', 'now')), strftime('%Y-%m-%d %H:%M:%f000', 'now'));
    UPDATE zego_tasks SET
        user_count        = NEW.user_count,
        user_count_at     = min(coalesce(strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at), strftime('%Y-%m-%d %H:%M:%f000', 'now')), strftime('%Y-%m-%d %H:%M:%f000', 'now')),
        user_count_source = coalesce(NEW.user_count_source, 'app')
    WHERE task_id = NEW.task_id AND EXISTS (SELECT 1 FROM zego_replaced) AND NEW.user_count IS NOT NULL;
    UPDATE zego_tasks SET status = NEW.status, ended_at = NEW.ended_at
    WHERE task_id = NEW.task_id AND EXISTS (SELECT 1 FROM zego_replaced) AND NEW.status <> 'active' AND status = 'active';
    DELETE FROM zego_replaced;
    DELETE FROM zego_deleted_tasks WHERE task_id = NEW.task_id;
END
--;
-- A task that ended a week ago is not heard of any more, and is only removed because of its age. If the row is only replaced,
-- zego_tasks_inserted deletes the TaskId again.
CREATE TRIGGER zego_tasks_deleted AFTER DELETE ON zego_tasks
WHEN OLD.ended_at IS NULL OR OLD.ended_at > strftime('%Y-%m-%d %H:%M:%f000', 'now', '-7 days')
BEGIN
    DELETE FROM zego_deleted_tasks WHERE task_id = OLD.task_id;
    INSERT INTO zego_deleted_tasks (task_id, deleted_at) VALUES (OLD.task_id, strftime('%Y-%m-%d %H:%M:%f000', 'now'));
END
--;
-- New values only: a check of the table would also refuse every later write to an old row. A number that became text matches
-- nothing later: 1920370518175780864 is stored as 1.92037051817578e+18, and 1001 as 1001.0. No TaskId looks like that. A room
-- may be called 1.0 or 1e+5, so only longer numbers are refused.
CREATE TRIGGER zego_tasks_refused BEFORE INSERT ON zego_tasks
BEGIN
    SELECT CASE
        WHEN ((NEW.task_id GLOB '[0-9]*.0' AND NEW.task_id NOT GLOB '*[^0-9.]*' AND NEW.task_id NOT GLOB '*.*.*')
                OR (NEW.task_id GLOB '[0-9]*e+[0-9]*' AND NEW.task_id NOT GLOB '*[^0-9.e+]*')) THEN RAISE(ABORT, 'CHECK constraint failed: zego_task_id_not_a_number')
        WHEN ((NEW.room_id GLOB '[0-9][0-9][0-9]*.0' AND NEW.room_id NOT GLOB '*[^0-9.]*' AND NEW.room_id NOT GLOB '*.*.*')
                OR (NEW.room_id GLOB '[0-9]*e+[0-9][0-9]*' AND NEW.room_id NOT GLOB '*[^0-9.e+]*')) THEN RAISE(ABORT, 'CHECK constraint failed: zego_room_id_not_a_number')
        WHEN (NEW.max_idle_seconds BETWEEN 1 AND 29) THEN RAISE(ABORT, 'CHECK constraint failed: zego_max_idle_seconds_at_least_30')
    END;
END
--;
CREATE TRIGGER zego_tasks_change_refused BEFORE UPDATE OF task_id, room_id, max_idle_seconds ON zego_tasks
BEGIN
    SELECT CASE
        WHEN NEW.task_id IS NOT OLD.task_id AND ((NEW.task_id GLOB '[0-9]*.0' AND NEW.task_id NOT GLOB '*[^0-9.]*' AND NEW.task_id NOT GLOB '*.*.*')
                OR (NEW.task_id GLOB '[0-9]*e+[0-9]*' AND NEW.task_id NOT GLOB '*[^0-9.e+]*')) THEN RAISE(ABORT, 'CHECK constraint failed: zego_task_id_not_a_number')
        WHEN NEW.room_id IS NOT OLD.room_id AND ((NEW.room_id GLOB '[0-9][0-9][0-9]*.0' AND NEW.room_id NOT GLOB '*[^0-9.]*' AND NEW.room_id NOT GLOB '*.*.*')
                OR (NEW.room_id GLOB '[0-9]*e+[0-9][0-9]*' AND NEW.room_id NOT GLOB '*[^0-9.e+]*')) THEN RAISE(ABORT, 'CHECK constraint failed: zego_room_id_not_a_number')
        WHEN NEW.max_idle_seconds IS NOT OLD.max_idle_seconds AND (NEW.max_idle_seconds BETWEEN 1 AND 29) THEN RAISE(ABORT, 'CHECK constraint failed: zego_max_idle_seconds_at_least_30')
    END;
END
