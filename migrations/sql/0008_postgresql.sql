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
--;
-- ZEGO lets tasks of other kinds be idle for less than 30 s.
CREATE OR REPLACE FUNCTION zego_tasks_refused() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    refused constant text := CASE
        WHEN NEW.task_id ~ '^[0-9]+([.]0|([.][0-9]+)?e[+][0-9]+)$' AND (TG_OP = 'INSERT' OR NEW.task_id <> OLD.task_id)
            THEN 'zego_task_id_not_a_number'
        WHEN NEW.room_id ~ '^([0-9]{3,}[.]0|[0-9]+([.][0-9]+)?e[+][0-9]{2,})$' AND (TG_OP = 'INSERT' OR NEW.room_id <> OLD.room_id)
            THEN 'zego_room_id_not_a_number'
        WHEN NEW.kind = 'asr' AND NEW.max_idle_seconds BETWEEN 1 AND 29
                AND (TG_OP = 'INSERT' OR NEW.max_idle_seconds IS DISTINCT FROM OLD.max_idle_seconds)
            THEN 'zego_max_idle_seconds_at_least_30'
    END;
BEGIN
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION USING
            MESSAGE = 'new row for relation "zego_tasks" violates check constraint "' || refused || '"',
            ERRCODE = 'check_violation', CONSTRAINT = refused, TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
    END IF;
    RETURN NEW;
END
$$
