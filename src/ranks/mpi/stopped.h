/* Inside libniti_mpi.so: which rank of this host has been stopped, before MPI has started and can be asked. */
#ifndef NITI_RANKS_MPI_STOPPED_H
#define NITI_RANKS_MPI_STOPPED_H

/* The lowest rank of this run on this host whose process is stopped (SIGSTOP); -1: none, or the launcher does not say which
 * processes belong together (PMIX_NAMESPACE, PMIX_RANK), or they are another user's. */
int niti_mpi_stopped(void);

#endif
