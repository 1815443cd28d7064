"""What does everybody speak of? Knobs, studies, plain records, errors, untrusted input."""
