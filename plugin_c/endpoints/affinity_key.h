/* Where the key of affinity's tags comes from: a file that the operator gives all replicas, else one kept beside the last good state, else
 * chance.  Once, while the plugin loads, before the first endpoint set is made; no TS API.  The key is never logged. */
#ifndef ATSK_AFFINITY_KEY_H
#define ATSK_AFFINITY_KEY_H

#include "base/atsk_base.h"

ATSK_BEGIN_DECLS

#define ATSK_KEY_FILE_MAX 4096u /* bytes of --session-key-file */

/* Reads `key_file`; or else STATE_DIR/session.key, which is made, with a random key, if it is not there.  Both NUL-terminated; NULL or empty:
 * not given.  Gives the key to atsk_affinity_key_set().
 * ATSK_OK.  ATSK_MISS: the key is random and this process's own; `why` says what was wrong with the state directory, or is empty if none
 * was given.  ATSK_E_IO, _RANGE: the key file cannot be read, is shorter than 16 bytes or too long; `why` says so, and there is no key. */
enum atsk_status atsk_affinity_key_load(const char *key_file, const char *state_dir, char *why, size_t why_size) ATSK_MUST_CHECK;

ATSK_END_DECLS
#endif
