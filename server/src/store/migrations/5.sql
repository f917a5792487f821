-- Whether it was asked for by its name or number (1) or given at random (2). 0: that was not noted yet.
ALTER TABLE names ADD COLUMN came_by INTEGER NOT NULL DEFAULT 0;
