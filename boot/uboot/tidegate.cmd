# Tidegate's boot script for U-Boot, style `order`: two slots, A and B, a counter for each.
#
# Takes the first slot of BOOT_ORDER that has tries left, spends one, saves that, and only then loads the kernel. A slot that does not come up is tried again
# until its tries are spent, then the other one is booted. When all are spent they are filled up and the board resets: it never ends at a prompt.
#
# U-Boot needs: CONFIG_HUSH_PARSER, `saveenv` to a redundant environment (CONFIG_SYS_REDUNDAND_ENVIRONMENT) on a raw device or in FAT files, CONFIG_BOOTDELAY=0
# or -2. No arithmetic is needed. Make it an image with
#     mkimage -A arm64 -T script -C none -n tidegate -d boot.cmd boot.scr
#
# What a board defines, in its default environment or in lines put before these (`cat board.cmd tidegate.cmd >boot.cmd`):
#     tidegate_boot      loads and starts the slot, and comes back only when that failed; may use tidegate_slot (A or B) and tidegate_part, and finds bootargs set
#     tidegate_part_A, tidegate_part_B      what stands in tidegate_part for each slot, mostly the number of its partition
#     tidegate_root_A, tidegate_root_B      what the kernel gets as root=
#     tidegate_args      the rest of the kernel's arguments; with panic=5 or the like, so that a panic restarts the board
#     tidegate_tries     tries of a confirmed slot, 1 to f, 3 where nothing is said; `full` of [bootloader.uboot] is the same number
#
# What it keeps in the environment: BOOT_ORDER, BOOT_A_LEFT, BOOT_B_LEFT (one hexadecimal digit). The agent adds tidegate_trial, the slot on trial.

test -n "${tidegate_tries}" || setenv tidegate_tries 3
test -n "${BOOT_A_LEFT}" || setenv BOOT_A_LEFT ${tidegate_tries}
test -n "${BOOT_B_LEFT}" || setenv BOOT_B_LEFT ${tidegate_tries}

# An order that names no slot is no order.
known=no
for slot in ${BOOT_ORDER}; do
	if test "${slot}" = A -o "${slot}" = B; then known=yes; fi
done
if test ${known} = no; then setenv BOOT_ORDER "A B"; fi

pick=none
for slot in ${BOOT_ORDER}; do
	left=none
	if test "${slot}" = A; then left=${BOOT_A_LEFT}; fi
	if test "${slot}" = B; then left=${BOOT_B_LEFT}; fi
	if test ${pick} = none; then
		# One less than what is left: what comes before it in this list. Nothing comes before 0, and what is not in the list is no number.
		before=none
		for digit in 0 1 2 3 4 5 6 7 8 9 a b c d e f; do
			if test "${left}" = ${digit}; then
				if test ${before} != none; then pick=${slot}; less=${before}; fi
			fi
			before=${digit}
		done
	fi
done

if test ${pick} = A; then setenv BOOT_A_LEFT ${less}; fi
if test ${pick} = B; then setenv BOOT_B_LEFT ${less}; fi
if test ${pick} = none; then
	echo "tidegate: all tries are spent, filling up"
	for slot in ${BOOT_ORDER}; do
		if test "${slot}" = A; then setenv BOOT_A_LEFT ${tidegate_tries}; fi
		if test "${slot}" = B; then setenv BOOT_B_LEFT ${tidegate_tries}; fi
	done
fi

if saveenv; then
	if test ${pick} = none; then reset; fi
else
	# A try that could not be written down must not be used: a slot on trial would be tried for ever.
	echo "tidegate: the environment cannot be saved, nothing is tried"
	for slot in ${BOOT_ORDER}; do
		if test "${slot}" = A -o "${slot}" = B; then
			if test ${pick} = none -o "${pick}" = "${tidegate_trial}"; then pick=${slot}; fi
		fi
	done
fi

setenv tidegate_slot ${pick}
if test ${pick} = A; then
	setenv tidegate_part ${tidegate_part_A}
	setenv tidegate_root ${tidegate_root_A}
else
	setenv tidegate_part ${tidegate_part_B}
	setenv tidegate_root ${tidegate_root_B}
fi
setenv bootargs "root=${tidegate_root} ${tidegate_args} tidegate.slot=${pick}"
echo "tidegate: pick=${pick} order=${BOOT_ORDER} A=${BOOT_A_LEFT} B=${BOOT_B_LEFT}"
run tidegate_boot
echo "tidegate: slot ${pick} did not start"
reset
