/* The normalised view of a request that matching works on (design: no spelling of a protected path escapes its rule).
 * Pure: bytes in, bytes out; the origin still gets the path as the client sent it.  Any thread. */
#ifndef ATSK_REQUEST_H
#define ATSK_REQUEST_H

#include "base/atsk_base.h"

ATSK_BEGIN_DECLS

/* What a request's bytes deserve before any table is asked. */
enum atsk_request_fault {
  ATSK_REQUEST_FINE      = 0,
  ATSK_REQUEST_BAD_HOST  = 1, /* 400: no host, not a host name or IP literal, or a port out of range (RFC 3986 section 3.2.2) */
  ATSK_REQUEST_BAD_PATH  = 2, /* 400: NUL, bad percent escape, a raw control byte, or more ".." than segments */
  ATSK_REQUEST_LONG_PATH = 3, /* 414: over ATSK_PATH_MAX */
};

struct atsk_host { /* a host name as the trie holds it: lower case, no port, no trailing dot; "[::1]" keeps its brackets */
  uint16_t len;
  uint16_t port; /* host order; 0 if the authority names none */
  char bytes[ATSK_HOST_MAX + 1u];
};

/* Host part of `authority` (a Host header, :authority or absolute-form URL's authority), normalised into *out. */
enum atsk_request_fault atsk_host_normalise(struct atsk_str authority, struct atsk_host *out) ATSK_MUST_CHECK;

/* `path` starts with '/', has no query, and is normalised into *out: percent-encoded unreserved characters decoded, escapes
 * upper-cased, "//" collapsed, "." and ".." resolved (RFC 3986 sections 5.2.4, 6.2.2); "%2F" stays opaque, so does "%5C"; a raw byte from 0x80 on becomes its escape.
 * Borrows from `path` when nothing had to change (the usual case), else from `room`, which has ATSK_PATH_MAX bytes. */
enum atsk_request_fault atsk_path_normalise(struct atsk_str path, char *room, struct atsk_str *out) ATSK_MUST_CHECK;

ATSK_END_DECLS
#endif
