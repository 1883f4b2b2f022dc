/* What every file of the core shares: statuses, borrowed strings, attributes.  No allocation, no state. */
#ifndef ATSK_BASE_H
#define ATSK_BASE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__cplusplus)
#define ATSK_BEGIN_DECLS extern "C" {
#define ATSK_END_DECLS }
#else
#define ATSK_BEGIN_DECLS
#define ATSK_END_DECLS
#endif

#if defined(__GNUC__)
#define ATSK_API __attribute__((visibility("default")))
#define ATSK_MUST_CHECK __attribute__((warn_unused_result))
#else
#define ATSK_API
#define ATSK_MUST_CHECK
#endif

/* 0 is success, negative an error, positive an outcome that is not an error.
 * The numbers cross into Python (bridge.h): they are never reused. */
enum atsk_status {
  ATSK_OK          = 0,
  ATSK_MISS        = 1,   /* nothing there, and that is an answer */
  ATSK_E_NOMEM     = -1,  /* allocation failed; nothing was changed */
  ATSK_E_LAYOUT    = -2,  /* bytes that are not a blob of this version: magic, version, alignment, reserved bits */
  ATSK_E_TRUNCATED = -3,  /* an offset or count leads out of the bytes */
  ATSK_E_RANGE     = -4,  /* a value outside its range */
  ATSK_E_ORDER     = -5,  /* items that must be sorted are not */
  ATSK_E_HOST      = -6,  /* not a host name that a table can hold */
  ATSK_E_UNKNOWN   = -7,  /* an id that no commit has defined */
  ATSK_E_STATE     = -8,  /* called out of order, e.g. a commit that was not begun */
  ATSK_E_CERT      = -9,  /* certificate unusable */
  ATSK_E_KEY       = -10, /* private key unusable, or of another certificate */
  ATSK_E_PYTHON    = -11, /* Python failed or did not start */
  ATSK_E_TIMEOUT   = -12,
  ATSK_E_IO        = -13, /* a file could not be read or written */
  ATSK_E_ENDED     = -14, /* what was to run on has ended, and may be called again */
};

/* A borrowed run of bytes; never NUL-terminated by assumption.  {NULL, 0} is "absent". */
struct atsk_str {
  const char *ptr;
  size_t len;
};

struct atsk_span {
  const uint8_t *ptr;
  size_t len;
};

/* Bounds of what a request may look like.  Each has one documented answer (docs/architecture.md, "A request"). */
#define ATSK_HOST_MAX 253u   /* bytes of a host name, RFC 1035 section 2.3.4, without a trailing dot */
#define ATSK_LABEL_MAX 63u   /* bytes of one DNS label */
#define ATSK_LABELS_MAX 127u /* labels of a host name */
#define ATSK_PATH_MAX 8192u  /* bytes of a request path; longer is answered 414 */
#define ATSK_TRIES_MAX 8u    /* endpoints that one request may try */

#endif
