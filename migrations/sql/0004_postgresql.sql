-- Revision 0004 on PostgreSQL.
-- A task that ended a week ago is not heard of any more, and is only removed because of its age. A role without the right
-- to write into the table deletes its tasks all the same: docs/roles.sql grants it.
CREATE FUNCTION zego_tasks_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    -- The writer's search_path may be another.
    noted constant text := quote_ident(TG_TABLE_SCHEMA) || '.zego_deleted_tasks';
BEGIN
    IF (OLD.ended_at IS NULL OR OLD.ended_at > clock_timestamp() - interval '7 days')
            AND current_setting('zego_watchdog.taken_over', true) IS DISTINCT FROM OLD.task_id
            AND has_table_privilege(noted, 'INSERT') THEN
        EXECUTE 'INSERT INTO ' || noted || ' (task_id, deleted_at) VALUES ($1, $2) ON CONFLICT DO NOTHING'
        USING OLD.task_id, clock_timestamp();
    END IF;
    RETURN NULL;
END
$$
--;
CREATE TRIGGER zego_tasks_deleted AFTER DELETE ON zego_tasks
FOR EACH ROW EXECUTE FUNCTION zego_tasks_deleted()
--;
-- When the watchdog inserted the row itself, because a callback reported the task; null once the application has.
ALTER TABLE zego_tasks ADD COLUMN discovered_at timestamptz
--;
-- The application's INSERT over such a row succeeds, and its columns win. What is known of the task stays: the newer hint, a
-- claim, a final status. So the row becomes what an UPDATE of the old one would have made of it.
CREATE FUNCTION zego_tasks_taken_over() RETURNS trigger LANGUAGE plpgsql AS $$
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
    IF known.status <> 'active' THEN
        NEW.status := known.status;
        NEW.ended_at := known.ended_at;
    ELSIF NEW.status = 'active' AND known.claimed_by IS NOT NULL THEN
        NEW.claimed_by := known.claimed_by;
        NEW.wake_at := known.wake_at;
    END IF;
    IF NEW.user_count IS NULL OR NEW.user_count_at < known.user_count_at THEN
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
-- Triggers run in the order of their names: zego_tasks_inserted and zego_tasks_seen_by_vendor set their columns first.
CREATE TRIGGER zego_tasks_taken_over BEFORE INSERT ON zego_tasks
FOR EACH ROW WHEN (NEW.discovered_at IS NULL)
EXECUTE FUNCTION zego_tasks_taken_over()
