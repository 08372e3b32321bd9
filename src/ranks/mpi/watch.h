/* Inside libniti_mpi.so: the thread that finds ranks which no longer answer, from before MPI starts until it has ended. While MPI
 * works it is a heartbeat: every rank sends rank 0 a byte per second, and rank 0 every rank. While MPI starts and ends, in which
 * it waits for all ranks and says nothing, it is a deadline and a look at the ranks of this host (mates.h). */
#ifndef NITI_RANKS_MPI_WATCH_H
#define NITI_RANKS_MPI_WATCH_H

#include <mpi.h>
#include <sys/types.h>

#include "ranks/transport.h"

/* Before MPI starts; `wait`: for how many seconds it may take to start, and to end. Returns whether the thread could be made. */
bool niti_mpi_watch_begin(int wait, NitiTransportLost lost, void *context);
/* MPI has started, and beats is the watch's own; threads: MPI can be called by several. Returns whether there was memory. */
bool niti_mpi_watch_started(MPI_Comm beats, bool threads);
/* Every rank has come to its end, and none sends or needs beats any more. The thread makes no call of MPI after this. */
void niti_mpi_watch_closing(void);
/* Ends the thread, at any time. */
void niti_mpi_watch_end(void);
/* After MPI has ended: waits until processes[count] of ranks[count] of this host have ended, two seconds at most; one that is
 * stopped is lost. */
void niti_mpi_watch_mates(const pid_t *processes, const int *ranks, int count);

#endif
