"""What stands behind the commands that bring rooms together: they may use run, study and publish; nothing but the command line uses them."""
