"""Counters that outlive a request, behind `base.LimitStore`."""
