/* Inside libniti_mpi.so: what /proc says of the other ranks of this host, while MPI cannot be asked: before it has started, and
 * when it ends. Ranks are known by what their launcher says (PMIX_NAMESPACE, PMIX_RANK); where it says nothing, or they are
 * another user's, nothing is found. */
#ifndef NITI_RANKS_MPI_MATES_H
#define NITI_RANKS_MPI_MATES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* A number that the launcher gives in the environment, in mpirun's variable or in Slurm's; -1: neither. */
int niti_mpi_given(const char *mpirun, const char *slurm);
/* The lowest rank of this run on this host whose process is stopped (SIGSTOP); -1: none. */
int niti_mpi_stopped(void);
/* Describes the ranks of this host that keep MPI from starting, or may: those without a process, those whose processes have not
 * loaded MPI, and those whose memory is limited. Returns whether there are any. */
bool niti_mpi_describe(char *text, size_t size);
/* Whether this process of this host is a rank that still runs, or is stopped. */
bool niti_mpi_is_running(pid_t process, int rank, bool *stopped);

#endif
