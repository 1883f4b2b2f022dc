/* The last good state: the published table as a file, from which a start serves before Python runs, and while the API server is away.
 * Written on any thread but the controller's, beside commits; staged on the plugin's load, before there is a controller.  What it reads
 * is hostile.  No TS API, no Python.  Layout: state_format.h; what operators see: docs/state.md. */
#ifndef ATSK_STATE_H
#define ATSK_STATE_H

#include <stdbool.h>

#include "base/atsk_base.h"
#include "controller/controller.h"
#include "controller/state_format.h"

ATSK_BEGIN_DECLS

#define ATSK_STATE_WHY_MAX 512u /* bytes that hold any reason, with its NUL */

struct atsk_state_saved {
  uint64_t version;    /* of the table written */
  uint64_t size_bytes; /* of the file */
};

/* Writes the published table to DIR/table.state, mode 0600, by a rename: there is always the former file or the new one, whole.
 * Certificates, their keys and TLS policies are written `with_certificates` alone.  Holds a read section while it copies the table, not
 * while it writes.  ATSK_MISS: nothing was published yet.  ATSK_E_RANGE: over ATSK_STATE_MAX; ATSK_E_NOMEM; ATSK_E_IO; each with `why`
 * (ATSK_STATE_WHY_MAX), and the former file stays. */
enum atsk_status atsk_state_save(const char *dir, const uint8_t options[ATSK_OPTIONS_DIGEST], const struct atsk_settings *settings,
                                 bool with_certificates, uint64_t now_s, struct atsk_state_saved *out, char *why) ATSK_MUST_CHECK;

struct atsk_state_loaded {
  uint64_t written_s; /* Unix time */
  uint32_t n_vhosts;
  struct atsk_settings settings; /* the request path's, as they were: to be in place before the commit is published */
};

/* Reads DIR/table.state and stages it as a commit of its own, which is left open for the caller to publish.  ATSK_MISS: there is none.
 * Any other but ATSK_OK: it is not to be used as a whole, for the reason `why` (ATSK_STATE_WHY_MAX); no commit is open then. */
enum atsk_status atsk_state_stage(const char *dir, const uint8_t options[ATSK_OPTIONS_DIGEST], struct atsk_state_loaded *out,
                                  char *why) ATSK_MUST_CHECK;

/* The same of a file's bytes: 8-aligned, and changed by the call.  `checksum` false takes any checksum, for tests. */
enum atsk_status atsk_state_stage_bytes(uint8_t *bytes, size_t len, const uint8_t options[ATSK_OPTIONS_DIGEST], bool checksum,
                                        struct atsk_state_loaded *out, char *why) ATSK_MUST_CHECK;

ATSK_END_DECLS
#endif
