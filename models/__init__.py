"""Graph functions and their tensor names: no flags, no sessions."""
