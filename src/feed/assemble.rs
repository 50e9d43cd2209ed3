//! From messages to rendered transactions: relations, scopes, JSON.
