-- Revision 0008 on PostgreSQL.
-- NOT VALID: the constraint before was narrower, so there is no row to be found, and the search would lock the table.
ALTER TABLE zego_tasks
    DROP CONSTRAINT zego_kind_known,
    ADD CONSTRAINT zego_kind_known CHECK (kind IN ('asr', 'agent', 'digital_human', 'player', 'recording')) NOT VALID,
    ADD COLUMN bot_user_id text,
    ADD CONSTRAINT zego_bot_user_id_not_empty CHECK (bot_user_id <> '') NOT VALID
--;
-- A program from before 0008 may still run. It would take every task for one of ASR, ask the wrong API, and believe that
-- the task is gone. The tokens of programs that know the kinds end in a plus sign.
CREATE FUNCTION zego_tasks_claimed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NULL;
END
$$
--;
CREATE TRIGGER zego_tasks_claimed BEFORE UPDATE OF claimed_by ON zego_tasks
FOR EACH ROW WHEN (NEW.kind <> 'asr' AND NEW.claimed_by IS NOT NULL AND right(NEW.claimed_by, 1) <> '+')
EXECUTE FUNCTION zego_tasks_claimed()
