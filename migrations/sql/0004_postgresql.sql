-- Revision 0004 on PostgreSQL.
-- A task that ended a week ago is not heard of any more, and is only removed because of its age. A role without the right
-- to write into the table deletes its tasks all the same: docs/roles.sql grants it.
CREATE FUNCTION zego_tasks_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    -- The writer's search_path may be another.
    noted constant text := quote_ident(TG_TABLE_SCHEMA) || '.zego_deleted_tasks';
BEGIN
    IF (OLD.ended_at IS NULL OR OLD.ended_at > clock_timestamp() - interval '7 days') AND has_table_privilege(noted, 'INSERT') THEN
        EXECUTE 'INSERT INTO ' || noted || ' (task_id, deleted_at) VALUES ($1, $2) ON CONFLICT DO NOTHING'
        USING OLD.task_id, clock_timestamp();
    END IF;
    RETURN NULL;
END
$$
--;
CREATE TRIGGER zego_tasks_deleted AFTER DELETE ON zego_tasks
FOR EACH ROW EXECUTE FUNCTION zego_tasks_deleted()
