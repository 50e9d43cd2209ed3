//! Integration: manage.
