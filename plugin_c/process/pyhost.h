/* The embedded interpreter: started once for both plugins, on a thread that TSThreadCreate made, isolated from the environment; never
 * finalised.  Only file that includes Python.h. */
#ifndef ATSK_PYHOST_H
#define ATSK_PYHOST_H

#include "base/atsk_base.h"

ATSK_BEGIN_DECLS

/* Who asks; a bit each. */
enum atsk_plugin { ATSK_PLUGIN_REMAP = 1, ATSK_PLUGIN_SSL = 2 };

/* Registers one plugin use with its arguments ("--name=value", as ATS hands them over) and, the first time, starts Python and the
 * controller.  The same arguments again are legal; others are an error that names both.  Arguments are parsed by Python
 * (atsk8s/config.py); C looks at --venv and --state-dir alone.  Waits, bounded by `wait_ms`, until the first table is published.
 * ATSK_OK; ATSK_E_PYTHON, ATSK_E_STATE with `why` filled in (NUL-terminated); ATSK_E_TIMEOUT: started, no table yet. */
ATSK_API enum atsk_status atsk_pyhost_start(enum atsk_plugin plugin, int argc, const char *const argv[], int wait_ms, char *why,
                                            size_t why_size);

ATSK_END_DECLS
#endif
