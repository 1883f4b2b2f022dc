/* A virtual host's blob: checked once as hostile input, then read in place.  No TS API, no Python, no threads, no globals.
 * Layout: atsk_format.h. */
#ifndef ATSK_VHOST_H
#define ATSK_VHOST_H

#include "base/atsk_base.h"
#include "blob/atsk_format.h"

ATSK_BEGIN_DECLS

/* Checks every offset, count, index, order and reserved bit of `blob` (8-aligned), so that a walk of it cannot leave it or fail to
 * end.  ATSK_OK, or ATSK_E_LAYOUT, _TRUNCATED, _RANGE, _ORDER.  Linear in the blob; touches nothing outside it. */
enum atsk_status atsk_blob_validate(struct atsk_span blob) ATSK_MUST_CHECK;

/* The rule of a validated blob for a normalised path (starts with '/'): the longest path wins, Exact over Prefix at equal
 * length, then default_rule.  ATSK_OK with the rule's index, or ATSK_MISS.  Bounded by the path's segments times
 * log2(children). */
enum atsk_status atsk_blob_match(struct atsk_span blob, struct atsk_str path, uint32_t *rule) ATSK_MUST_CHECK;

/* Typed borrowed views of a validated blob. */
const struct atsk_blob_header *atsk_blob_header_view(struct atsk_span blob);
const struct atsk_blob_rule *atsk_blob_rule_at(struct atsk_span blob, uint32_t rule);
const struct atsk_blob_backend *atsk_blob_backend_at(struct atsk_span blob, uint32_t backend);
struct atsk_str atsk_blob_str_view(struct atsk_span blob, struct atsk_blob_str s);

ATSK_END_DECLS
#endif
