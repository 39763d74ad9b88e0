/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Errors that reach people: a kind (stable name on the bus), an errno, a sentence.
 *
 * Life-cycle functions (format, open, start, stop, options) take a `struct ter_error *` that may be NULL. Hot paths (file operations)
 * return a negative errno only. Core does not log: it explains here, the daemon logs once.
 *
 * A sentence says what happened, to which thing in the user's words, and what the user can do.
 */
#ifndef TER_ERROR_H
#define TER_ERROR_H

#include "util/base.h"

/* x(NAME of the enum, errno, name on the bus without the prefix org.terracefs.Terrace1.Error.) Ids are not on disk; rows may move. */
#define TER_ERRORS(x)                                                                                                  \
	x(FAILED, EIO, "Failed")                                                                                       \
	x(INVALID_ARGUMENT, EINVAL, "InvalidArgument")                                                                 \
	x(INVALID_OPTION, EINVAL, "InvalidOption")                                                                     \
	x(NOT_SUPPORTED, EOPNOTSUPP, "NotSupported")                                                                   \
	x(NOT_FOUND, ENOENT, "NotFound")                                                                               \
	x(NOT_AUTHORIZED, EACCES, "NotAuthorized")                                                                     \
	x(NOT_AUTHORIZED_CAN_OBTAIN, EACCES, "NotAuthorizedCanObtain")                                                 \
	x(NOT_AUTHORIZED_DISMISSED, EACCES, "NotAuthorizedDismissed")                                                  \
	x(BUSY, EBUSY, "Busy")                                                                                         \
	x(DEVICE_BUSY, EBUSY, "DeviceBusy")                                                                            \
	x(DEVICE_IN_USE, EBUSY, "DeviceInUse")                                                                         \
	x(DEVICE_TOO_SMALL, ENOSPC, "DeviceTooSmall")                                                                  \
	x(DEVICE_FOREIGN, EINVAL, "DeviceForeign")                                                                     \
	x(DEVICE_MISSING, ENODEV, "DeviceMissing")                                                                     \
	x(WRONG_STATE, EINVAL, "WrongState")                                                                           \
	x(ALREADY_RUNNING, EALREADY, "AlreadyRunning")                                                                 \
	x(ALREADY_MOUNTED, EBUSY, "AlreadyMounted")                                                                    \
	x(NOT_MOUNTED, EINVAL, "NotMounted")                                                                           \
	x(READ_ONLY, EROFS, "ReadOnly")                                                                                \
	x(EMERGENCY_READ_ONLY, EROFS, "EmergencyReadOnly")                                                             \
	x(INCOMPLETE, ENODEV, "Incomplete")                                                                            \
	x(DEGRADED, ENODEV, "Degraded")                                                                                \
	x(WOULD_DEGRADE, EBUSY, "WouldDegrade")                                                                        \
	x(WOULD_LOSE_DATA, EBUSY, "WouldLoseData")                                                                     \
	x(WOULD_LOSE_METADATA, EBUSY, "WouldLoseMetadata")                                                             \
	x(INSUFFICIENT_DEVICES, EINVAL, "InsufficientDevices")                                                         \
	x(SPLIT_BRAIN, EUCLEAN, "SplitBrain")                                                                          \
	x(NO_SPACE, ENOSPC, "NoSpace")                                                                                 \
	x(QUOTA_EXCEEDED, EDQUOT, "QuotaExceeded")                                                                     \
	x(CORRUPTED, EUCLEAN, "Corrupted")                                                                             \
	x(CHECKSUM_MISMATCH, EBADMSG, "ChecksumMismatch")                                                              \
	x(INCOMPATIBLE_VERSION, EPROTONOSUPPORT, "IncompatibleVersion")                                                \
	x(PLUGIN_MISSING, ENOPKG, "PluginMissing")                                                                     \
	x(PLUGIN_FAILED, ELIBBAD, "PluginFailed")                                                                      \
	x(LOCKED, ENOKEY, "Locked")                                                                                    \
	x(WRONG_PASSPHRASE, EKEYREJECTED, "WrongPassphrase")                                                           \
	x(NO_KEY, ENOKEY, "NoKey")                                                                                     \
	x(FSCK_REQUIRED, EUCLEAN, "FsckRequired")                                                                      \
	x(REPAIR_UNSUPPORTED, EOPNOTSUPP, "RepairUnsupported")                                                         \
	x(REPAIR_IMPOSSIBLE, EUCLEAN, "RepairImpossible")                                                              \
	x(NO_MEMORY, ENOMEM, "NoMemory")                                                                               \
	x(DEVICE_REMOVED, ENODEV, "DeviceRemoved")                                                                     \
	x(DEVICE_ALREADY_ONLINE, EALREADY, "DeviceAlreadyOnline")                                                      \
	x(BLOCK_SIZE_MISMATCH, EINVAL, "BlockSizeMismatch")                                                            \
	x(AMBIGUOUS_NAME, ENOTUNIQ, "AmbiguousName")                                                                   \
	x(FAULT_INJECTED, EIO, "FaultInjected")                                                                        \
	x(CANCELLED, ECANCELED, "Cancelled")                                                                           \
	x(ALREADY_CANCELLED, ECANCELED, "AlreadyCancelled")                                                            \
	x(NOT_CANCELABLE, EINVAL, "NotCancelable")                                                                     \
	x(TIMED_OUT, ETIMEDOUT, "TimedOut")                                                                            \
	x(JOB_CONFLICT, EBUSY, "JobConflict")                                                                          \
	x(LIMIT_EXCEEDED, E2BIG, "LimitExceeded")                                                                      \
	x(IO, EIO, "Io")                                                                                               \
	x(INTERNAL, ENOTRECOVERABLE, "Internal")

enum ter_error_kind {
	TER_ERR_NONE,
#define x(name, err, bus) TER_ERR_##name,
	TER_ERRORS(x)
#undef x
	TER_ERR_NR,
};

#define TER_ERROR_TEXT_MAX 1024

struct ter_error {
	enum ter_error_kind kind;
	int err; /* negative errno; what the function also returned */
	char text[TER_ERROR_TEXT_MAX];
};

/** ter_error_name() - the name on the bus, e.g. "DeviceTooSmall"; "Failed" for a kind out of range. */
const char *ter_error_name(enum ter_error_kind kind);

/** ter_error_kind_of() - the kind that fits a bare negative errno best; TER_ERR_FAILED when none does. */
enum ter_error_kind ter_error_kind_of(int r);

/**
 * ter_fail() - explain and return
 * @error: may be NULL; the first explanation given is kept unless it was cleared
 * Return: the kind's errno, negative.
 */
int ter_fail(struct ter_error *error, enum ter_error_kind kind, const char *fmt, ...) TER_PRINTF(3, 4);

/** ter_fail_errno() - the same for a negative errno @r, whose kind is derived; returns @r. Keeps an explanation already there. */
int ter_fail_errno(struct ter_error *error, int r, const char *fmt, ...) TER_PRINTF(3, 4);

static inline void ter_error_clear(struct ter_error *error)
{
	if (error)
		*error = (struct ter_error){ 0 };
}

#endif
