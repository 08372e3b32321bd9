/* Internal to src/backend: the tuning file, which says in which way this device runs which convolution fastest. */
#ifndef NITI_BACKEND_TUNING_H
#define NITI_BACKEND_TUNING_H

#include "backend/kernels.h"

/* Which build of the kernels this is: a digest of their sources (cmake/kernels.cmake). */
extern const char niti_kernels_digest[];

/* Reads what the file has for this device. Whatever is wrong with the file becomes the note of its facts. Fails with
 * NITI_ERROR_MEMORY alone. */
NitiStatus niti_tuning_open(NitiTuning **out, const char *path, const NitiBackend *);
void niti_tuning_close(NitiTuning *); /* NULL is allowed */

/* The name of a call in the file: "forward 64x32x32x128 to 128, 3x3, stride 1x1, pad 1x1". */
void niti_tuning_name(char name[NITI_CONVOLUTION_MAX], const NitiConvCall *);
/* The number of the way that the file has for the call; false: it has none that the device knows, and *way is 0. tuning: NULL is
 * allowed. */
bool niti_tuning_find(NitiTuning *tuning, const NitiBackend *, const NitiConvCall *, int *way);

#endif
