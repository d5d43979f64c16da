-- Revision 0005 on PostgreSQL.
-- An UPDATE that writes the room is a whole row written by the application, perhaps as it was some time ago: the daemon never
-- writes the room. The columns of the daemon and the database stay. Triggers run in the order of their names: this is the first.
CREATE FUNCTION zego_tasks_daemons_own() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.last_occupied_at := OLD.last_occupied_at;
    NEW.empty_since := OLD.empty_since;
    NEW.due_at := OLD.due_at;
    NEW.auto_stop_at := OLD.auto_stop_at;
    NEW.wake_at := OLD.wake_at;
    NEW.claimed_by := OLD.claimed_by;
    NEW.attempts := OLD.attempts;
    NEW.asked_at := OLD.asked_at;
    NEW.vendor_occupied_at := OLD.vendor_occupied_at;
    NEW.discovered_at := OLD.discovered_at;
    NEW.ended_at := coalesce(NEW.ended_at, OLD.ended_at);
    RETURN NEW;
END
$$
--;
CREATE TRIGGER zego_tasks_daemons_own BEFORE UPDATE OF task_id, room_id ON zego_tasks
FOR EACH ROW EXECUTE FUNCTION zego_tasks_daemons_own()
--;
-- A final status never changes. The row counts as updated, because an object-relational mapper takes a row that was not for an
-- error.
CREATE OR REPLACE FUNCTION zego_tasks_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status <> 'active' THEN
        NEW.status := OLD.status;
        NEW.ended_at := OLD.ended_at;
    END IF;
    NEW.ended_at := coalesce(NEW.ended_at, clock_timestamp());
    NEW.wake_at := NULL;
    NEW.claimed_by := NULL;
    RETURN NEW;
END
$$
--;
CREATE OR REPLACE FUNCTION zego_tasks_hinted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    moment constant timestamptz := clock_timestamp();
    -- SQL cannot tell a missing time from an unchanged one: both mean now.
    at_given constant boolean := NEW.user_count_at IS NOT NULL AND NEW.user_count_at IS DISTINCT FROM OLD.user_count_at;
BEGIN
    -- An observation older than the stored one is ignored, and so is every observation of an ended task.
    IF OLD.status <> 'active' OR (at_given AND NEW.user_count_at < OLD.user_count_at) THEN
        NEW.user_count := OLD.user_count;
        NEW.user_count_at := OLD.user_count_at;
        NEW.user_count_source := OLD.user_count_source;
        RETURN NEW;
    END IF;
    NEW.last_occupied_at := OLD.last_occupied_at;
    NEW.vendor_occupied_at := OLD.vendor_occupied_at;
    IF NEW.user_count IS NULL THEN
        NEW.user_count_source := NULL;
    ELSIF NEW.user_count_source IS NULL
            OR (NEW.user_count_source IS NOT DISTINCT FROM OLD.user_count_source AND NOT at_given) THEN
        NEW.user_count_source := 'app';
    END IF;
    NEW.user_count_at := CASE WHEN at_given THEN least(NEW.user_count_at, moment) ELSE moment END;
    IF NEW.user_count = 0 THEN
        NEW.empty_since := coalesce(CASE WHEN OLD.user_count = 0 THEN OLD.empty_since END, NEW.user_count_at);
    ELSE
        IF NEW.user_count > 0 THEN
            NEW.last_occupied_at := NEW.user_count_at;
        END IF;
        NEW.empty_since := NULL;
        NEW.due_at := NULL;
        NEW.auto_stop_at := NULL;
        -- While a claim is held, wake_at is the end of its lease and stays.
        IF NEW.claimed_by IS NULL THEN
            NEW.wake_at := NULL;
        END IF;
    END IF;
    RETURN NEW;
END
$$
--;
-- The application's INSERT over a discovered row: a limit or hold that it does not give stays, and a hint of an ended task is
-- ignored, as in an UPDATE.
CREATE OR REPLACE FUNCTION zego_tasks_taken_over() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    known record;
BEGIN
    -- The watchdog holds this lock while it inserts such a row, which is not visible before its commit.
    PERFORM pg_advisory_xact_lock_shared(2053465967, hashtext(NEW.task_id) & 63);
    EXECUTE 'SELECT * FROM ' || quote_ident(TG_TABLE_SCHEMA) || '.zego_tasks WHERE task_id = $1 AND discovered_at IS NOT NULL'
    INTO known USING NEW.task_id;
    IF known.task_id IS NULL THEN
        RETURN NEW;
    END IF;
    -- For zego_tasks_deleted: the task stays.
    PERFORM set_config('zego_watchdog.taken_over', NEW.task_id, true);
    EXECUTE 'DELETE FROM ' || quote_ident(TG_TABLE_SCHEMA) || '.zego_tasks WHERE task_id = $1 AND discovered_at IS NOT NULL RETURNING *'
    INTO known USING NEW.task_id;
    PERFORM set_config('zego_watchdog.taken_over', '', true);
    IF known.task_id IS NULL THEN
        RETURN NEW;
    END IF;
    NEW.attempts := known.attempts;
    NEW.asked_at := known.asked_at;
    NEW.max_idle_seconds := coalesce(NEW.max_idle_seconds, known.max_idle_seconds);
    NEW.grace_seconds := coalesce(NEW.grace_seconds, known.grace_seconds);
    NEW.hold_until := coalesce(NEW.hold_until, known.hold_until);
    IF known.status <> 'active' THEN
        NEW.status := known.status;
        NEW.ended_at := known.ended_at;
    ELSIF NEW.status = 'active' AND known.claimed_by IS NOT NULL THEN
        NEW.claimed_by := known.claimed_by;
        NEW.wake_at := known.wake_at;
    END IF;
    IF NEW.user_count IS NULL OR known.status <> 'active' OR NEW.user_count_at < known.user_count_at THEN
        NEW.user_count := known.user_count;
        NEW.user_count_at := known.user_count_at;
        NEW.user_count_source := known.user_count_source;
        NEW.empty_since := known.empty_since;
        NEW.last_occupied_at := known.last_occupied_at;
        NEW.vendor_occupied_at := known.vendor_occupied_at;
    ELSE
        NEW.last_occupied_at := coalesce(NEW.last_occupied_at, known.last_occupied_at);
        NEW.vendor_occupied_at := coalesce(NEW.vendor_occupied_at, known.vendor_occupied_at);
        IF NEW.user_count = 0 THEN
            NEW.empty_since := coalesce(known.empty_since, NEW.empty_since);
        END IF;
    END IF;
    RETURN NEW;
END
$$
--;
-- The plan of an ended task stays readable.
DROP TRIGGER zego_tasks_replan ON zego_tasks
--;
CREATE TRIGGER zego_tasks_replan BEFORE UPDATE OF hold_until, grace_seconds, max_idle_seconds, started_at ON zego_tasks
FOR EACH ROW WHEN (OLD.status = 'active' AND (
    NEW.hold_until IS DISTINCT FROM OLD.hold_until OR NEW.grace_seconds IS DISTINCT FROM OLD.grace_seconds
    OR NEW.max_idle_seconds IS DISTINCT FROM OLD.max_idle_seconds OR NEW.started_at IS DISTINCT FROM OLD.started_at
))
EXECUTE FUNCTION zego_tasks_replan()
--;
-- New values only: as constraints of the table, these would also refuse every later write to an old row. A number that became
-- text matches nothing later: 1920370518175780864 is stored as 1.9203705181757809e+18, and 1001 as 1001.0. No TaskId looks like
-- that. A room may be called 1.0 or 1e+5, so only longer numbers are refused.
CREATE FUNCTION zego_tasks_refused() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    refused constant text := CASE
        WHEN NEW.task_id ~ '^[0-9]+([.]0|([.][0-9]+)?e[+][0-9]+)$' AND (TG_OP = 'INSERT' OR NEW.task_id <> OLD.task_id)
            THEN 'zego_task_id_not_a_number'
        WHEN NEW.room_id ~ '^([0-9]{3,}[.]0|[0-9]+([.][0-9]+)?e[+][0-9]{2,})$' AND (TG_OP = 'INSERT' OR NEW.room_id <> OLD.room_id)
            THEN 'zego_room_id_not_a_number'
        WHEN NEW.max_idle_seconds BETWEEN 1 AND 29
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
--;
CREATE TRIGGER zego_tasks_refused BEFORE INSERT OR UPDATE OF task_id, room_id, max_idle_seconds ON zego_tasks
FOR EACH ROW EXECUTE FUNCTION zego_tasks_refused()
