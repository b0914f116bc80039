"""How often the stability monitor sees a failure that was planted, and how often it cries wolf."""
