/* Traffic Server's headers, and the one place that knows their versions.  Files that include this stay in the common subset of C11 and
 * C++17, because ATS 10's headers are C++ only; what differs between the majors gets a name here. */
#ifndef ATSK_ATS_H
#define ATSK_ATS_H

#include <ts/ts.h>

#include <ts/remap.h> /* needs ts.h before it */
#if TS_VERSION_MAJOR < 10
#include <ts/parentselectdefs.h> /* TSResponseAction; part of apidefs.h since 10 */
#endif

#if TS_VERSION_MAJOR < 9
#error "Traffic Server 9.2 or later is needed: earlier ones have no TSHttpTxnResponseActionSet"
#endif

/* Debug lines: a tag and a format; free of cost when the tag is off. */
#if TS_VERSION_MAJOR >= 10
#define ATSK_DEBUG_TAG(name) \
  static DbgCtl name         \
  {                          \
    "atsk8s"                 \
  }
#define ATSK_DEBUG(tag, ...) Dbg(tag, __VA_ARGS__)
#else
#define ATSK_DEBUG_TAG(name) static const char name[] = "atsk8s"
#define ATSK_DEBUG(tag, ...) TSDebug(tag, __VA_ARGS__)
#endif

/* ";params" of a path's last segment: 9 keeps them apart from the path, 10 does not. */
#if TS_VERSION_MAJOR >= 10
#define ATSK_URL_PARAMS_GET(bufp, loc, len) (*(len) = 0, (const char *)0)
#else
#define ATSK_URL_PARAMS_GET(bufp, loc, len) TSUrlHttpParamsGet(bufp, loc, len)
#endif

#endif
