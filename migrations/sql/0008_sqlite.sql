-- Revision 0008 on SQLite. The constraint on kind is widened by versions/0008_kinds.py.
ALTER TABLE zego_tasks ADD COLUMN bot_user_id TEXT CONSTRAINT zego_bot_user_id_not_empty CHECK (bot_user_id <> '')
--;
-- A program from before 0008 may still run. It would take every task for one of ASR, ask the wrong API, and believe that
-- the task is gone. The tokens of programs that know the kinds end in a plus sign.
CREATE TRIGGER zego_tasks_claimed BEFORE UPDATE OF claimed_by ON zego_tasks
WHEN NEW.kind <> 'asr' AND NEW.claimed_by IS NOT NULL AND NEW.claimed_by <> 'put back' AND substr(NEW.claimed_by, -1) <> '+'
BEGIN
    SELECT RAISE(IGNORE);
END
--;
-- ZEGO lets tasks of other kinds be idle for less than 30 s.
DROP TRIGGER zego_tasks_refused
--;
CREATE TRIGGER zego_tasks_refused BEFORE INSERT ON zego_tasks
BEGIN
    SELECT CASE
        WHEN ((NEW.task_id GLOB '[0-9]*.0' AND NEW.task_id NOT GLOB '*[^0-9.]*' AND NEW.task_id NOT GLOB '*.*.*')
                OR (NEW.task_id GLOB '[0-9]*e+[0-9]*' AND NEW.task_id NOT GLOB '*[^0-9.e+]*')) THEN RAISE(ABORT, 'CHECK constraint failed: zego_task_id_not_a_number')
        WHEN ((NEW.room_id GLOB '[0-9][0-9][0-9]*.0' AND NEW.room_id NOT GLOB '*[^0-9.]*' AND NEW.room_id NOT GLOB '*.*.*')
                OR (NEW.room_id GLOB '[0-9]*e+[0-9][0-9]*' AND NEW.room_id NOT GLOB '*[^0-9.e+]*')) THEN RAISE(ABORT, 'CHECK constraint failed: zego_room_id_not_a_number')
        WHEN (NEW.kind = 'asr' AND NEW.max_idle_seconds BETWEEN 1 AND 29) THEN RAISE(ABORT, 'CHECK constraint failed: zego_max_idle_seconds_at_least_30')
    END;
END
--;
DROP TRIGGER zego_tasks_change_refused
--;
CREATE TRIGGER zego_tasks_change_refused BEFORE UPDATE OF task_id, room_id, max_idle_seconds ON zego_tasks
BEGIN
    SELECT CASE
        WHEN NEW.task_id IS NOT OLD.task_id AND ((NEW.task_id GLOB '[0-9]*.0' AND NEW.task_id NOT GLOB '*[^0-9.]*' AND NEW.task_id NOT GLOB '*.*.*')
                OR (NEW.task_id GLOB '[0-9]*e+[0-9]*' AND NEW.task_id NOT GLOB '*[^0-9.e+]*')) THEN RAISE(ABORT, 'CHECK constraint failed: zego_task_id_not_a_number')
        WHEN NEW.room_id IS NOT OLD.room_id AND ((NEW.room_id GLOB '[0-9][0-9][0-9]*.0' AND NEW.room_id NOT GLOB '*[^0-9.]*' AND NEW.room_id NOT GLOB '*.*.*')
                OR (NEW.room_id GLOB '[0-9]*e+[0-9][0-9]*' AND NEW.room_id NOT GLOB '*[^0-9.e+]*')) THEN RAISE(ABORT, 'CHECK constraint failed: zego_room_id_not_a_number')
        WHEN NEW.max_idle_seconds IS NOT OLD.max_idle_seconds AND (NEW.kind = 'asr' AND NEW.max_idle_seconds BETWEEN 1 AND 29) THEN RAISE(ABORT, 'CHECK constraint failed: zego_max_idle_seconds_at_least_30')
    END;
END
