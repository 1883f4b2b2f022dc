/* gRPC, which Traffic Server 9.2 cannot carry: it speaks HTTP/1.1 to pods, and gives HTTP/2 clients no trailers, where gRPC has its status.
 * What tells such a request, and what it is answered.  Pure. */
#ifndef ATSK_GRPC_H
#define ATSK_GRPC_H

#include <stdbool.h>

#include "base/atsk_base.h"

ATSK_BEGIN_DECLS

/* Does a Content-Type say gRPC: "application/grpc", alone or with "+format" or parameters (gRPC over HTTP/2, "Requests")?  gRPC-Web is
 * none: its trailers are in the body, and it passes. */
bool atsk_grpc_is(struct atsk_str content_type);

/* The answer's fields: a "Trailers-Only" one, HTTP 200 without a body. */
#define ATSK_GRPC_CONTENT_TYPE "application/grpc"
#define ATSK_GRPC_STATUS "12" /* UNIMPLEMENTED */
#define ATSK_GRPC_MESSAGE \
  "this ingress (Traffic Server 9) cannot carry gRPC: use gRPC-Web, or expose the Service by another listener"

ATSK_END_DECLS
#endif
