-- Revision 0007 on SQLite.
-- One row for each time that the room of an active task was empty, written when that ends.
CREATE TABLE zego_empty_spells (
    id               INTEGER PRIMARY KEY,
    task_id          TEXT NOT NULL,
    kind             TEXT NOT NULL,
    app_id           BIGINT,
    room_id          TEXT NOT NULL,
    started_at       TEXT NOT NULL,
    last_occupied_at TEXT,
    max_idle_seconds INTEGER,
    grace_seconds    INTEGER,
    empty_since      TEXT NOT NULL,
    ended_at         TEXT NOT NULL,
    ending           TEXT NOT NULL,
    evidence_source  TEXT,
    CONSTRAINT zego_ending_known CHECK (ending IN ('returned', 'stopped', 'auto_stopped', 'released', 'unknown'))
)
--;
-- Computed from the old row and the statement, as in zego_tasks_hinted and zego_tasks_told: whatever the other triggers write
-- meanwhile, in whatever order, is of no matter. A value that is put back (0005) is no end, and a hint that is ignored is none.
-- A spell that began at the same moment, and ended at once, gives way: hence the DELETE. There is no ON CONFLICT, because the
-- words of the application's statement would overrule it.
CREATE TRIGGER zego_tasks_spell_ended AFTER UPDATE OF user_count ON zego_tasks
WHEN OLD.empty_since IS NOT NULL AND NEW.user_count IS NOT 0 AND OLD.status = 'active' AND OLD.claimed_by IS NOT 'put back'
    AND (NEW.status = 'active' OR NEW.user_count > 0)
    AND NOT (NEW.user_count_at IS NOT OLD.user_count_at
        AND coalesce(strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at) < OLD.user_count_at, 0))
BEGIN
    DELETE FROM zego_empty_spells WHERE task_id = NEW.task_id AND empty_since = OLD.empty_since;
    INSERT INTO zego_empty_spells (
        task_id, kind, app_id, room_id, started_at, last_occupied_at, max_idle_seconds, grace_seconds, empty_since, ended_at,
        ending, evidence_source
    ) VALUES (
        NEW.task_id, OLD.kind, OLD.app_id, OLD.room_id, OLD.started_at, OLD.last_occupied_at, OLD.max_idle_seconds,
        OLD.grace_seconds, OLD.empty_since,
        -- Clocks are set back.
        max(OLD.empty_since, CASE
            WHEN NEW.user_count_at IS OLD.user_count_at OR NEW.user_count_at IS NULL
                OR strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at) IS OLD.user_count_at
                THEN strftime('%Y-%m-%d %H:%M:%f000', 'now')
            ELSE min(strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at), strftime('%Y-%m-%d %H:%M:%f000', 'now')) END),
        CASE WHEN NEW.user_count > 0 THEN 'returned' ELSE 'unknown' END,
        CASE WHEN NEW.user_count IS NULL THEN OLD.user_count_source
             WHEN NEW.user_count_source IS NULL OR (NEW.user_count_source IS OLD.user_count_source AND (
                NEW.user_count_at IS OLD.user_count_at OR NEW.user_count_at IS NULL
                OR strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at) IS OLD.user_count_at
             )) THEN 'app' ELSE NEW.user_count_source END
    );
END
--;
-- Not if people came in the same statement.
CREATE TRIGGER zego_tasks_spell_ended_with_task AFTER UPDATE OF status ON zego_tasks
WHEN OLD.empty_since IS NOT NULL AND OLD.status = 'active' AND NEW.status <> 'active' AND OLD.claimed_by IS NOT 'put back'
    AND (coalesce(NEW.user_count, 0) = 0 OR coalesce(strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at) < OLD.user_count_at, 0))
BEGIN
    DELETE FROM zego_empty_spells WHERE task_id = NEW.task_id AND empty_since = OLD.empty_since;
    INSERT INTO zego_empty_spells (
        task_id, kind, app_id, room_id, started_at, last_occupied_at, max_idle_seconds, grace_seconds, empty_since, ended_at,
        ending, evidence_source
    ) VALUES (
        NEW.task_id, OLD.kind, OLD.app_id, OLD.room_id, OLD.started_at, OLD.last_occupied_at, OLD.max_idle_seconds,
        OLD.grace_seconds, OLD.empty_since,
        -- The application may give any ended_at.
        max(OLD.empty_since, min(
            coalesce(strftime('%Y-%m-%d %H:%M:%f000', NEW.ended_at), strftime('%Y-%m-%d %H:%M:%f000', 'now')),
            strftime('%Y-%m-%d %H:%M:%f000', 'now'))),
        CASE WHEN NEW.status IN ('stopped', 'auto_stopped', 'released') THEN NEW.status ELSE 'unknown' END,
        OLD.user_count_source
    );
END
--;
CREATE TRIGGER zego_tasks_spell_deleted AFTER DELETE ON zego_tasks
WHEN OLD.empty_since IS NOT NULL AND OLD.status = 'active'
BEGIN
    DELETE FROM zego_empty_spells WHERE task_id = OLD.task_id AND empty_since = OLD.empty_since;
    INSERT INTO zego_empty_spells (
        task_id, kind, app_id, room_id, started_at, last_occupied_at, max_idle_seconds, grace_seconds, empty_since, ended_at,
        ending, evidence_source
    ) VALUES (
        OLD.task_id, OLD.kind, OLD.app_id, OLD.room_id, OLD.started_at, OLD.last_occupied_at, OLD.max_idle_seconds,
        OLD.grace_seconds, OLD.empty_since, max(OLD.empty_since, strftime('%Y-%m-%d %H:%M:%f000', 'now')), 'released',
        OLD.user_count_source
    );
END
--;
-- The row was only replaced, or taken over: zego_tasks_inserted puts it back, before it applies what the INSERT gives. So the
-- spell goes on, and its DELETE was no end.
CREATE TRIGGER zego_tasks_spell_goes_on AFTER UPDATE OF empty_since ON zego_tasks
WHEN OLD.claimed_by = 'put back' AND NEW.empty_since IS NOT NULL AND NEW.status = 'active'
BEGIN
    DELETE FROM zego_empty_spells WHERE task_id = NEW.task_id AND empty_since = NEW.empty_since;
END
--;
-- Each task counts once, by its first end in the ledger: an answer that arrives late may add a second. auto_stop_at is a plan,
-- so a stop after it has freed 0 seconds and not fewer.
CREATE VIEW zego_savings AS
SELECT
    s.day, s.kind, s.app_id,
    count(CASE WHEN s.is_stop THEN 1 END) AS stops,
    round(coalesce(sum(s.freed), 0.0), 3) AS slot_seconds_freed,
    round(avg(s.freed), 3) AS seconds_before_auto_stop,
    count(CASE WHEN s.is_stop AND s.freed IS NULL THEN 1 END) AS no_auto_stop,
    count(CASE WHEN s.outcome = 'auto_stopped' THEN 1 END) AS missed,
    count(CASE WHEN s.outcome = 'spared' THEN 1 END) AS spared,
    count(CASE WHEN s.is_stop AND s.back_after <= 60 THEN 1 END) AS back_within_60,
    count(CASE WHEN s.is_stop AND s.back_after <= 600 THEN 1 END) AS back_within_600
FROM (
    SELECT
        substr(coalesce(a.replied_at, a.recorded_at), 1, 10) AS day,
        a.kind, a.app_id, a.outcome,
        a.outcome IN ('stopped', 'stopped_earlier') AS is_stop,
        CASE WHEN a.outcome IN ('stopped', 'stopped_earlier') AND a.reason <> 'bots_only'
                AND a.auto_stop_at IS NOT NULL AND a.replied_at IS NOT NULL
            THEN max(0.0, round((julianday(a.auto_stop_at) - julianday(a.replied_at)) * 86400.0, 3)) END AS freed,
        round((julianday(r.rejoined_at) - julianday(r.stopped_at)) * 86400.0, 3) AS back_after
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
