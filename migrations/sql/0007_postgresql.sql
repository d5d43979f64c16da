-- Revision 0007 on PostgreSQL.
-- One row for each time that the room of an active task was empty, written when that ends.
CREATE TABLE zego_empty_spells (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id          text NOT NULL,
    kind             text NOT NULL,
    app_id           bigint,
    room_id          text NOT NULL,
    started_at       timestamptz NOT NULL,
    last_occupied_at timestamptz,
    max_idle_seconds integer,
    grace_seconds    integer,
    empty_since      timestamptz NOT NULL,
    ended_at         timestamptz NOT NULL,
    ending           text NOT NULL,
    evidence_source  text,
    CONSTRAINT zego_ending_known CHECK (ending IN ('returned', 'stopped', 'auto_stopped', 'released', 'unknown'))
)
--;
-- It runs with the rights of its owner, because the application has no right to write spells: as the functions that write
-- events (0006). A spell that began at the same moment, and ended at once, gives way. No conflict is named: without the index,
-- the application's statement would fail.
CREATE FUNCTION zego_tasks_spell_ended() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    moment constant timestamptz := clock_timestamp();
    kept jsonb;
    spell record;
    its_ending text := 'released';
    its_end timestamptz;
    its_source text;
    its_task constant text := CASE WHEN TG_OP = 'DELETE' THEN OLD.task_id ELSE NEW.task_id END;
BEGIN
    PERFORM set_config('search_path', concat(current_setting('search_path'), ', ', quote_ident(TG_TABLE_SCHEMA), ', pg_temp'), true);
    IF TG_OP = 'INSERT' THEN
        -- The application's columns win.
        kept := current_setting('zego_watchdog.empty_spell')::jsonb;
        spell := NEW;
        spell.empty_since := (kept ->> 'empty_since')::timestamptz;
        spell.last_occupied_at := (kept ->> 'last_occupied_at')::timestamptz;
        IF NEW.user_count IS DISTINCT FROM 0 THEN
            spell.user_count_source := kept ->> 'user_count_source';
        END IF;
    ELSE
        spell := OLD;
    END IF;
    IF TG_OP <> 'UPDATE' THEN
        PERFORM set_config('zego_watchdog.empty_spell', '', true);
    END IF;
    IF TG_OP = 'INSERT' AND NEW.empty_since IS NOT NULL AND NEW.status = 'active' THEN
        -- The spell goes on.
        RETURN NEW;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        IF NEW.empty_since IS NULL AND NEW.user_count > 0 THEN
            its_ending := 'returned';
            its_end := NEW.user_count_at;
        ELSIF NEW.status <> 'active' THEN
            its_ending := CASE WHEN NEW.status IN ('stopped', 'auto_stopped', 'released') THEN NEW.status ELSE 'unknown' END;
            its_end := NEW.ended_at;
        ELSE
            its_ending := 'unknown';
            its_end := NEW.user_count_at;
        END IF;
    END IF;
    -- The application may give any ended_at, and clocks are set back.
    its_end := greatest(spell.empty_since, least(coalesce(its_end, moment), moment));
    its_source := CASE WHEN its_ending = 'returned' THEN NEW.user_count_source ELSE spell.user_count_source END;
    INSERT INTO zego_empty_spells (
        task_id, kind, app_id, room_id, started_at, last_occupied_at, max_idle_seconds, grace_seconds, empty_since, ended_at,
        ending, evidence_source
    ) VALUES (
        its_task, spell.kind, spell.app_id, spell.room_id, spell.started_at, spell.last_occupied_at, spell.max_idle_seconds,
        spell.grace_seconds, spell.empty_since, its_end, its_ending, its_source
    ) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        UPDATE zego_empty_spells SET
            last_occupied_at = spell.last_occupied_at, ended_at = its_end, ending = its_ending, evidence_source = its_source
        WHERE task_id = its_task AND empty_since = spell.empty_since;
    END IF;
    -- For the trigger that runs before an INSERT.
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION zego_tasks_spell_ended() FROM PUBLIC
--;
-- Only these two columns end a spell. What the BEFORE triggers made of them is in the new row.
CREATE TRIGGER zego_tasks_spell_ended AFTER UPDATE OF user_count, status ON zego_tasks
FOR EACH ROW WHEN (OLD.empty_since IS NOT NULL AND OLD.status = 'active' AND (NEW.empty_since IS NULL OR NEW.status <> 'active'))
EXECUTE FUNCTION zego_tasks_spell_ended()
--;
CREATE TRIGGER zego_tasks_spell_deleted AFTER DELETE ON zego_tasks
FOR EACH ROW WHEN (OLD.empty_since IS NOT NULL AND OLD.status = 'active'
    AND current_setting('zego_watchdog.taken_over', true) IS DISTINCT FROM OLD.task_id)
EXECUTE FUNCTION zego_tasks_spell_ended()
--;
-- The application's INSERT over a discovered row, which zego_tasks_taken_over deletes: the spell goes on, unless the new row is
-- occupied or has ended.
CREATE FUNCTION zego_tasks_spell_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('zego_watchdog.empty_spell', to_jsonb(OLD)::text, true);
    RETURN NULL;
END
$$
--;
CREATE TRIGGER zego_tasks_spell_kept AFTER DELETE ON zego_tasks
FOR EACH ROW WHEN (OLD.empty_since IS NOT NULL AND OLD.status = 'active'
    AND current_setting('zego_watchdog.taken_over', true) = OLD.task_id)
EXECUTE FUNCTION zego_tasks_spell_kept()
--;
-- Triggers run in the order of their names: after zego_tasks_taken_over. Not after the INSERT, when the setting may already be
-- that of the statement's next row.
CREATE TRIGGER zego_tasks_took_spell_over BEFORE INSERT ON zego_tasks
FOR EACH ROW WHEN (nullif(current_setting('zego_watchdog.empty_spell', true), '')::jsonb ->> 'task_id' = NEW.task_id)
EXECUTE FUNCTION zego_tasks_spell_ended()
--;
-- Each task counts once, by its first end in the ledger: an answer that arrives late may add a second. auto_stop_at is a plan,
-- so a stop after it has freed 0 seconds and not fewer.
CREATE VIEW zego_savings AS
SELECT
    s.day, s.kind, s.app_id,
    count(*) FILTER (WHERE s.is_stop) AS stops,
    coalesce(sum(s.freed), 0)::double precision AS slot_seconds_freed,
    round(avg(s.freed), 3)::double precision AS seconds_before_auto_stop,
    count(*) FILTER (WHERE s.is_stop AND s.freed IS NULL) AS no_auto_stop,
    count(*) FILTER (WHERE s.outcome = 'auto_stopped') AS missed,
    count(*) FILTER (WHERE s.outcome = 'spared') AS spared,
    count(*) FILTER (WHERE s.is_stop AND s.back_after <= 60) AS back_within_60,
    count(*) FILTER (WHERE s.is_stop AND s.back_after <= 600) AS back_within_600
FROM (
    SELECT
        (coalesce(a.replied_at, a.recorded_at) AT TIME ZONE 'UTC')::date AS day,
        a.kind, a.app_id, a.outcome,
        a.outcome IN ('stopped', 'stopped_earlier') AS is_stop,
        CASE WHEN a.outcome IN ('stopped', 'stopped_earlier') AND a.reason <> 'bots_only'
                AND a.auto_stop_at IS NOT NULL AND a.replied_at IS NOT NULL
            THEN greatest(0, round(extract(epoch FROM a.auto_stop_at - a.replied_at), 3)) END AS freed,
        round(extract(epoch FROM r.rejoined_at - r.stopped_at), 3) AS back_after
    FROM zego_stop_attempts AS a LEFT JOIN zego_rejoins AS r ON r.task_id = a.task_id
    WHERE a.reason <> 'manual' AND (
        a.outcome = 'spared'
        OR (a.outcome IN ('stopped', 'stopped_earlier', 'auto_stopped') AND NOT EXISTS (
            SELECT 1 FROM zego_stop_attempts AS earlier
            WHERE earlier.task_id = a.task_id AND earlier.id < a.id
                AND earlier.outcome IN ('stopped', 'stopped_earlier', 'auto_stopped')
        ))
    )
) AS s
GROUP BY s.day, s.kind, s.app_id
