/* The folder of an export: written whole, and without what an earlier export left there. */
#ifndef NITI_EXPORT_FOLDER_H
#define NITI_EXPORT_FOLDER_H

#include "export/layouts.h"
#include "io/checkpoint.h"

/* Fails unless the folder is missing, empty but for what a killed export left, or an earlier export of this name. */
NitiStatus niti_export_check_folder(const char *out, const char *name);
/* Makes the folder and those above it, and writes the files and NAME.safetensors, all of them before the first takes its place,
 * and NAME.sha256: their list, as sha256sum reads it. Then removes the files that an earlier list has and this one has not,
 * unless they have been changed since. After a failure that leaves files of either export behind, the next export removes those
 * that it does not write. */
NitiStatus niti_export_write_folder(const char *out, const char *name, const NitiExportFiles *files,
                                    const NitiCheckpoint *checkpoint);

#endif
