"""The door on a throwaway host: the real Caddy, and the portal that the lab has."""
