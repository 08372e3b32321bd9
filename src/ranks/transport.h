/* What a plugin for several processes provides: libniti_mpi.so is one. It is loaded at run time, so that niti needs no MPI where
 * there is none. The plugin alone knows MPI's types. */
#ifndef NITI_RANKS_TRANSPORT_H
#define NITI_RANKS_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>

enum { NITI_TRANSPORT_VERSION = 3, NITI_TRANSPORT_TEXT = 256 };
#define NITI_TRANSPORT_SYMBOL "niti_transport"

typedef enum NitiReduction { NITI_REDUCE_MAX_U32, NITI_REDUCE_MAX_S64, NITI_REDUCE_SUM_S32, NITI_REDUCE_SUM_S64 } NitiReduction;

/* Instead of a rank: the ranks did not come together, or did not end together. */
enum { NITI_LOST_STARTING = -1, NITI_LOST_ENDING = -2 };

/* Called on a thread of the plugin's own, or within `close`, once, when a rank no longer answers, with its number and for how
 * many seconds. Before the transport has started the rank is one of this host that was stopped. `why` says what is known of this
 * host's ranks, "": nothing. */
typedef void (*NitiTransportLost)(void *context, int rank, int seconds, const char *why);

/* All functions are collective, except lost and abort, and return whether they succeeded. */
typedef struct NitiTransport {
  const char *name; /* the library and its version */
  int rank, size;
  int local_rank, local_size;                                        /* among the ranks of this host */
  bool (*reduce)(void *data, size_t count, NitiReduction reduction); /* in place */
  /* The same, complete only after `end`, which completes all that were begun; meanwhile other collectives may run. */
  bool (*begin)(void *data, size_t count, NitiReduction reduction);
  bool (*end)(void);
  bool (*broadcast)(void *data, size_t bytes);             /* from rank 0 */
  bool (*gather)(void *out, const void *in, size_t bytes); /* out: every rank's, in their order */
  const char *(*failure)(void);                            /* why the last of these failed */
  void (*close)(void);
  void (*abort)(int code); /* ends all ranks, this one included; returns while MPI starts or ends */
} NitiTransport;

/* The plugin's one symbol: starts the transport, and from then on calls `lost` with `context` for each rank that is; `wait`: for
 * how many seconds the ranks may keep each other waiting at the start and at the end. NULL with a reason in
 * why[NITI_TRANSPORT_TEXT]. */
typedef const NitiTransport *(*NitiTransportOpen)(int version, int wait, NitiTransportLost lost, void *context, char *why);

#endif
