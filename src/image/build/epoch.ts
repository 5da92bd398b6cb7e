/**
 * The time that files made by a build carry, 2026-01-01: a fixed one, so that building the same again gives the same
 * bytes, the same digest, and no reason to restart anything. Files that come from packages keep their own times if older.
 */
export const buildEpochSec = 1_767_225_600;
