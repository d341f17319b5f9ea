-- What a build took of memory that cannot be reclaimed, where it was measured.
ALTER TABLE builds ADD COLUMN peak_anon_bytes INTEGER;
-- The most memory that an attempt of it had and that proved too little.
ALTER TABLE builds ADD COLUMN outgrown_bytes INTEGER;
CREATE INDEX builds_outgrown ON builds (service_id, finished_at) WHERE outgrown_bytes IS NOT NULL;
