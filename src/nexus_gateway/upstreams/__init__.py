"""One file per kind of destination, all behind `base.Upstream`."""
