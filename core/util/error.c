/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Errors that reach people: names, kinds of bare errnos, and filling in an explanation. */
#include "util/error.h"

#include <stdarg.h>
#include <stdio.h>

static const struct {
	int err;
	const char *bus_name;
} error_table[TER_ERR_NR] = {[TER_ERR_NONE] = {0, "Failed"},
#define x(name, err, bus) [TER_ERR_##name] = {err, bus},
			     TER_ERRORS(x)
#undef x
};

/* Several kinds share an errno; for a bare one the general kind is meant, not the first in the table. */
static const struct {
	int err;
	enum ter_error_kind kind;
} kind_of_errno[] = {
	{EINVAL, TER_ERR_INVALID_ARGUMENT},
	{ENAMETOOLONG, TER_ERR_INVALID_ARGUMENT},
	{EOPNOTSUPP, TER_ERR_NOT_SUPPORTED},
	{ENOSYS, TER_ERR_NOT_SUPPORTED},
	{ENOTTY, TER_ERR_NOT_SUPPORTED},
	{ENOENT, TER_ERR_NOT_FOUND},
	{EACCES, TER_ERR_NOT_AUTHORIZED},
	{EPERM, TER_ERR_NOT_AUTHORIZED},
	{EBUSY, TER_ERR_BUSY},
	{ENODEV, TER_ERR_DEVICE_MISSING},
	{ENXIO, TER_ERR_DEVICE_MISSING},
	{EALREADY, TER_ERR_ALREADY_RUNNING},
	{EROFS, TER_ERR_READ_ONLY},
	{EUCLEAN, TER_ERR_CORRUPTED},
	{EBADMSG, TER_ERR_CHECKSUM_MISMATCH},
	{ENOSPC, TER_ERR_NO_SPACE},
	{EDQUOT, TER_ERR_QUOTA_EXCEEDED},
	{EPROTONOSUPPORT, TER_ERR_INCOMPATIBLE_VERSION},
	{ENOPKG, TER_ERR_PLUGIN_MISSING},
	{ELIBBAD, TER_ERR_PLUGIN_FAILED},
	{ENOKEY, TER_ERR_NO_KEY},
	{EKEYREJECTED, TER_ERR_WRONG_PASSPHRASE},
	{ENOMEM, TER_ERR_NO_MEMORY},
	{ENOTUNIQ, TER_ERR_AMBIGUOUS_NAME},
	{ECANCELED, TER_ERR_CANCELLED},
	{ETIMEDOUT, TER_ERR_TIMED_OUT},
	{E2BIG, TER_ERR_LIMIT_EXCEEDED},
	{EMFILE, TER_ERR_LIMIT_EXCEEDED},
	{ENFILE, TER_ERR_LIMIT_EXCEEDED},
	{EIO, TER_ERR_IO},
	{ENOTRECOVERABLE, TER_ERR_INTERNAL},
};

const char *ter_error_name(enum ter_error_kind kind)
{
	if ((unsigned)kind >= TER_ERR_NR)
		return "Failed";
	return error_table[kind].bus_name;
}

enum ter_error_kind ter_error_kind_of(int r)
{
	for (size_t i = 0; i < ARRAY_SIZE(kind_of_errno); i++)
		if (kind_of_errno[i].err == -r)
			return kind_of_errno[i].kind;
	return TER_ERR_FAILED;
}

static void explain(struct ter_error *error, enum ter_error_kind kind, int r, const char *fmt, va_list args)
{
	if (!error || error->kind != TER_ERR_NONE)
		return;
	error->kind = kind;
	error->err = r;
	(void)vsnprintf(error->text, sizeof(error->text), fmt, args); /* a sentence cut at its end still helps */
}

int ter_fail(struct ter_error *error, enum ter_error_kind kind, const char *fmt, ...)
{
	va_list args;
	int r;

	assert(kind > TER_ERR_NONE && kind < TER_ERR_NR);
	r = -error_table[kind].err;
	va_start(args, fmt);
	explain(error, kind, r, fmt, args);
	va_end(args);
	return r;
}

int ter_fail_errno(struct ter_error *error, int r, const char *fmt, ...)
{
	va_list args;

	assert(r < 0);
	va_start(args, fmt);
	explain(error, ter_error_kind_of(r), r, fmt, args);
	va_end(args);
	return r;
}
