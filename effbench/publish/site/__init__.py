"""The leaderboard: a static site of any number of record folders. `build.publish` makes it."""
