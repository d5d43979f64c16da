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
