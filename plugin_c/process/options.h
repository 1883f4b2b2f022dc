/* What C needs of the options before Python has parsed them: one option's text, and a digest that is equal when the options are. */
#ifndef ATSK_OPTIONS_H
#define ATSK_OPTIONS_H

#include "base/atsk_base.h"

ATSK_BEGIN_DECLS

/* The text of the last "--NAME=text", else of the environment variable; NULL if neither is there or it is empty.  Borrowed. */
const char *atsk_option_text(int argc, const char *const argv[], const char *name, const char *variable);

/* A digest of the plugin's arguments and of the environment variables that are options, in any order; without those that do not decide
 * what the table holds (--state-dir, --log-level, --log-format, --events, --admin, --venv), secrets, and what Kubernetes puts into a pod's environment for a
 * Service that happens to be called like us.  It resists accidents alone.  `environment` ends with NULL. */
void atsk_options_digest(int argc, const char *const argv[], char *const environment[], uint8_t out[32]);

ATSK_END_DECLS
#endif
