"""What every floor may use: checks, precision, files, extras, HTML, compilation."""
